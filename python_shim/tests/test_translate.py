import errno
import os

import pytest
import torch

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import error_pb2
from prunebridge_shim.rpc.translate import CODES, to_detail, to_shim_error


def test_reasons_are_the_protocols():
    wire = {name.removeprefix("ERROR_REASON_"): number for name, number in error_pb2.ErrorReason.items()}
    del wire["UNSPECIFIED"]
    assert wire == {reason.name: reason.value for reason in Reason}
    assert set(CODES) == set(Reason)


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (ShimError(Reason.BAD_DATA, "x"), Reason.BAD_DATA, "x"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/p/q"), Reason.STORAGE_FULL, "/p/q: No space left"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), Reason.STORAGE_FULL, "quota"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/p"), Reason.STORAGE_FAILED, "/p: Input/output error"),
        (FileNotFoundError(errno.ENOENT, "no", "/p"), Reason.PATH_NOT_FOUND, "/p does not exist"),
        (torch.cuda.OutOfMemoryError("tried 2 GiB"), Reason.GPU_OOM, "tried 2 GiB"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG), "/p"), Reason.STORAGE_FULL, "/p: File too large"),
        (MemoryError("Unable to allocate 8 PiB"), Reason.GPU_OOM, "8 PiB"),
        (RuntimeError("CUDA error: out of memory"), Reason.GPU_OOM, "CUDA error"),
        (RuntimeError("shapes differ"), Reason.INTERNAL, "RuntimeError: shapes differ"),
        (ZeroDivisionError("oops"), Reason.INTERNAL, "ZeroDivisionError: oops"),
    ],
)
def test_exceptions_are_named(error, reason, says):
    named = to_shim_error(error)
    assert named.reason is reason
    assert says in named.message


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_name_their_limit(number):
    named = to_shim_error(OSError(number, os.strerror(number), "/p"))
    assert (named.reason, named.hint) == (Reason.STORAGE_FAILED, "raise the limit on open files (ulimit -n)")


def test_torch_says_that_this_machine_has_no_room_as_expected():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert to_shim_error(caught.value).reason is Reason.GPU_OOM


def test_an_exception_that_cannot_be_told_is_named_all_the_same():
    class UntoldError(RuntimeError):
        def __str__(self):
            raise ValueError("no text")

    assert "UntoldError: (its text cannot be told)" in to_shim_error(UntoldError()).message


def test_a_detail_stays_under_4_kib_and_is_whole_text():
    detail = to_detail(ShimError(Reason.BAD_DATA, "ä" * 50_000, "ö" * 50_000))
    assert len(detail.SerializeToString()) < 4096
    assert detail.message.endswith("ä...")
    assert detail.hint.endswith("ö...")


def test_a_short_detail_is_kept_as_it_is():
    detail = to_detail(ShimError(Reason.BAD_DATA, "what", "next"))
    assert (detail.message, detail.hint) == ("what", "next")
