"""The one place where exceptions become what the wire carries."""

import logging
from collections.abc import Mapping

import grpc

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory, storage_error, text_of
from prunebridge_shim.gen.prunebridge.v1 import error_pb2

DETAIL_KEY = "prunebridge-error-bin"
DETAIL_BYTES = 3584
"""For message and hint together: with its envelope a detail stays under 4 KiB. A large one stalls some clients."""

STATUS_CHARACTERS = 200
"""Of the message in the gRPC status, for tools that do not read details."""

CODES: Mapping[Reason, grpc.StatusCode] = {
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PROTOCOL_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNKNOWN_OPERATION: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_MODULE: grpc.StatusCode.NOT_FOUND,
    Reason.BAD_TENSOR: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.BAD_CHECKPOINT: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.BAD_DATA: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PATH_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.PATH_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.STORAGE_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.GPU_OOM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RANK_LOST: grpc.StatusCode.ABORTED,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.MISSING_DEPENDENCY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FEED_LOST: grpc.StatusCode.ABORTED,
    Reason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    Reason.PYTHON_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.PYTHON_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.RIGHT_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TARGET_BUSY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SOURCE_CHANGED: grpc.StatusCode.ABORTED,
}

log = logging.getLogger(__name__)


def to_shim_error(error: BaseException) -> ShimError:
    """Names any exception by a reason. What is a defect of the shim goes to the log with its traceback."""
    if isinstance(error, ShimError):
        return error
    if isinstance(error, OSError):
        named = storage_error(error)
        if named.reason is Reason.STORAGE_FAILED:
            log.warning("storage failed", exc_info=error)
        return named
    if is_out_of_memory(error):
        log.warning("out of memory", exc_info=error)
        return ShimError(
            Reason.GPU_OOM, f"out of memory: {text_of(error)}", "use smaller batches, or close other models"
        )
    log.error("a defect of the shim", exc_info=error)
    return ShimError(Reason.INTERNAL, f"{type(error).__name__}: {text_of(error)}", "the traceback is in the shim's log")


def to_detail(error: BaseException) -> error_pb2.ErrorDetail:
    """Builds the detail of an exception, cut to what the wire can carry."""
    named = to_shim_error(error)
    hint = _cut(named.hint, DETAIL_BYTES // 4)
    message = _cut(named.message, DETAIL_BYTES - len(hint.encode()))
    return error_pb2.ErrorDetail(reason=error_pb2.ErrorReason.Name(named.reason), message=message, hint=hint)


def abort(context: grpc.ServicerContext, error: BaseException) -> None:
    """Ends a call with an exception's code and detail. Raises."""
    detail = to_detail(error)
    context.set_trailing_metadata(((DETAIL_KEY, detail.SerializeToString()),))
    context.abort(CODES[Reason(detail.reason)], detail.message[:STATUS_CHARACTERS])


def _cut(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "..."
