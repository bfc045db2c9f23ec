from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_REQUEST: _ClassVar[ErrorReason]
    ERROR_REASON_PROTOCOL_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_OPERATION: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_MODEL: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_MODULE: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_TENSOR: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_CHECKPOINT: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_DATA: _ClassVar[ErrorReason]
    ERROR_REASON_PATH_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_PATH_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_GPU_OOM: _ClassVar[ErrorReason]
    ERROR_REASON_RANK_LOST: _ClassVar[ErrorReason]
    ERROR_REASON_CANCELLED: _ClassVar[ErrorReason]
    ERROR_REASON_MISSING_DEPENDENCY: _ClassVar[ErrorReason]
    ERROR_REASON_FEED_LOST: _ClassVar[ErrorReason]
    ERROR_REASON_SHUTTING_DOWN: _ClassVar[ErrorReason]
    ERROR_REASON_PYTHON_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_PYTHON_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_RIGHT_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_LIMIT_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_TARGET_BUSY: _ClassVar[ErrorReason]
    ERROR_REASON_SOURCE_CHANGED: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_INVALID_REQUEST: ErrorReason
ERROR_REASON_PROTOCOL_MISMATCH: ErrorReason
ERROR_REASON_UNKNOWN_OPERATION: ErrorReason
ERROR_REASON_UNKNOWN_MODEL: ErrorReason
ERROR_REASON_UNKNOWN_MODULE: ErrorReason
ERROR_REASON_BAD_TENSOR: ErrorReason
ERROR_REASON_BAD_CHECKPOINT: ErrorReason
ERROR_REASON_BAD_DATA: ErrorReason
ERROR_REASON_PATH_DENIED: ErrorReason
ERROR_REASON_PATH_NOT_FOUND: ErrorReason
ERROR_REASON_STORAGE_FULL: ErrorReason
ERROR_REASON_STORAGE_FAILED: ErrorReason
ERROR_REASON_GPU_OOM: ErrorReason
ERROR_REASON_RANK_LOST: ErrorReason
ERROR_REASON_CANCELLED: ErrorReason
ERROR_REASON_MISSING_DEPENDENCY: ErrorReason
ERROR_REASON_FEED_LOST: ErrorReason
ERROR_REASON_SHUTTING_DOWN: ErrorReason
ERROR_REASON_PYTHON_DENIED: ErrorReason
ERROR_REASON_PYTHON_FAILED: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_RIGHT_DENIED: ErrorReason
ERROR_REASON_LIMIT_EXCEEDED: ErrorReason
ERROR_REASON_TARGET_BUSY: ErrorReason
ERROR_REASON_SOURCE_CHANGED: ErrorReason

class ErrorDetail(_message.Message):
    __slots__ = ("reason", "message", "hint")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    reason: ErrorReason
    message: str
    hint: str
    def __init__(self, reason: _Optional[_Union[ErrorReason, str]] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...
