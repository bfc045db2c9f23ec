"""The error that every part of the shim raises for what it can name, by the protocol's closed list of reasons."""

import errno
import sys
from enum import IntEnum

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What storage without room says: the disk's end, a quota's, and that of what one file may hold."""

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
"""What opening a file says where a process, or the whole machine, has too many open."""


class Reason(IntEnum):
    """What went wrong, numbered and named as `ErrorReason` of the protocol."""

    INTERNAL = 1
    INVALID_REQUEST = 2
    PROTOCOL_MISMATCH = 3
    UNKNOWN_OPERATION = 4
    UNKNOWN_MODEL = 5
    UNKNOWN_MODULE = 6
    BAD_TENSOR = 7
    BAD_CHECKPOINT = 8
    BAD_DATA = 9
    PATH_DENIED = 10
    PATH_NOT_FOUND = 11
    STORAGE_FULL = 12
    STORAGE_FAILED = 13
    GPU_OOM = 14
    RANK_LOST = 15
    CANCELLED = 16
    MISSING_DEPENDENCY = 17
    FEED_LOST = 18
    SHUTTING_DOWN = 19
    PYTHON_DENIED = 20
    PYTHON_FAILED = 21
    UNAUTHENTICATED = 22
    RIGHT_DENIED = 23
    LIMIT_EXCEEDED = 24
    TARGET_BUSY = 25
    SOURCE_CHANGED = 26


OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of the texts of torch's errors for want of memory."""


class ShimError(Exception):
    """A failure with a reason, a message that says what and where, and a hint that says what to do next."""

    def __init__(self, reason: Reason, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint


def cancelled() -> ShimError:
    """The error that ends work whose client asked for its end."""
    return ShimError(Reason.CANCELLED, "the operation was cancelled")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device, or this machine, has no room."""
    if isinstance(error, MemoryError):
        return True
    # Where torch was never imported, nothing of it was raised.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    # torch has no class for these.
    return isinstance(error, RuntimeError) and any(words in text_of(error) for words in OUT_OF_MEMORY)


def reason_of(error: BaseException) -> Reason:
    """The reason for an error without one."""
    return Reason.GPU_OOM if is_out_of_memory(error) else Reason.INTERNAL


def text_of(error: BaseException) -> str:
    """An exception's own text; its class may fail to tell it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 whatever it raises
        return "(its text cannot be told)"


def storage_error(error: OSError) -> ShimError:
    """Names what a file or its storage refused."""
    where = f"{error.filename}: " if error.filename else ""
    if isinstance(error, FileNotFoundError):
        return ShimError(
            Reason.PATH_NOT_FOUND, f"{error.filename} does not exist", "paths are those of the shim's machine"
        )
    if error.errno in FULL:
        return ShimError(Reason.STORAGE_FULL, f"{where}{error.strerror}", "free some space, or name another folder")
    told = f"{where}{error.strerror or error}"
    if error.errno in NO_DESCRIPTORS:
        return ShimError(Reason.STORAGE_FAILED, told, "raise the limit on open files (ulimit -n)")
    return ShimError(Reason.STORAGE_FAILED, told, "check the path's permissions and its disk")
