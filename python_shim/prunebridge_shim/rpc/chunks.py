"""Messages that carry a chunk, read and written without copies of its data.

Generated code makes three on the way in and four on the way out. It still reads and writes all the rest of a message:
the data is the last field of a chunk, and the chunk the last of a message, wherever a serialiser goes by field numbers.
What is laid out otherwise is left to it whole.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, tensor_pb2

DATA = tensor_pb2.TensorChunk.DATA_FIELD_NUMBER
CHUNK_OF_REQUEST = operation_pb2.FeedRequest.CHUNK_FIELD_NUMBER
CHUNK_OF_RESPONSE = operation_pb2.FeedResponse.CHUNK_FIELD_NUMBER
"""That of `ReadResultResponse`, too."""

VARINT, LENGTH_DELIMITED = 0, 2
FIXED_BYTES = {1: 8, 5: 4}
"""The wire types of protobuf's encoding, with the sizes of those that have one."""
MAX_VARINT_BYTES = 10

MOST_FIELDS = 4
"""Of a message that is read here, one more than the contract has; generated code is faster with others."""


class FeedPart(NamedTuple):
    """A request of a feed, and its chunk's data, which `request` itself may lack."""

    request: operation_pb2.FeedRequest
    data: bytes | memoryview


def read_request(message: bytes) -> FeedPart:
    """Parses a request of a feed; raises protobuf's DecodeError for bytes that are none."""
    whole = memoryview(message)
    chunk = _last_field(whole, CHUNK_OF_REQUEST)
    data = chunk and _last_field(chunk.content, DATA)
    if chunk is None or data is None:
        request = operation_pb2.FeedRequest.FromString(message)
        return FeedPart(request, request.chunk.data)
    request = operation_pb2.FeedRequest.FromString(bytes(whole[: chunk.start]))
    request.chunk.MergeFromString(bytes(chunk.content[: data.start]))
    return FeedPart(request, data.content)


def response_of(chunk: tensor_pb2.TensorChunk, data: memoryview) -> bytes:
    """Serialises the response, of a feed or of a result, that carries a chunk without data and its data."""
    head = chunk.SerializeToString() + _field_head(DATA, len(data))
    return b"".join((_field_head(CHUNK_OF_RESPONSE, len(head) + len(data)), head, data))


def chunk_methods(feed: Callable[..., Any], read_result: Callable[..., Any]) -> list[grpc.GenericRpcHandler]:
    """The methods that carry chunks, for a server to add before their services.

    Args:
        feed: `FeedService.Feed`, which is given `FeedPart`s.
        read_result: `OperationService.ReadResult`. Both may yield responses that are serialised already.
    """
    to_feed = grpc.stream_stream_rpc_method_handler(feed, read_request, _serialised)
    to_read = grpc.unary_stream_rpc_method_handler(read_result, operation_pb2.ReadResultRequest.FromString, _serialised)
    return [
        grpc.method_handlers_generic_handler("prunebridge.v1.FeedService", {"Feed": to_feed}),
        grpc.method_handlers_generic_handler("prunebridge.v1.OperationService", {"ReadResult": to_read}),
    ]


def _serialised(response: Any) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


class _Field(NamedTuple):
    start: int
    content: memoryview


def _last_field(message: memoryview, number: int) -> _Field | None:
    """The last field of a message of few, where it has that number and is length-delimited."""
    start = begin = end = tag = 0
    try:
        for _ in range(MOST_FIELDS):
            if end >= len(message):
                break
            start = end
            tag, begin, end = _read_field(message, start)
    except (IndexError, ValueError):
        return None
    found = end == len(message) and tag == _tag(number)
    return _Field(start, message[begin:]) if found else None


def _read_field(message: memoryview, at: int) -> tuple[int, int, int]:
    """The tag of the field at some place, and where its content begins and ends; raises IndexError or ValueError."""
    tag, begin = _read_varint(message, at)
    kind = tag & 7
    if kind == LENGTH_DELIMITED:
        size, begin = _read_varint(message, begin)
        return tag, begin, begin + size
    if kind == VARINT:
        return tag, begin, _read_varint(message, begin)[1]
    if kind in FIXED_BYTES:
        return tag, begin, begin + FIXED_BYTES[kind]
    raise ValueError(f"wire type {kind}")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(MAX_VARINT_BYTES):
        byte = message[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 the bit that says that more follow
            return value, at + index + 1
    raise ValueError("a varint of more than ten bytes")


def _field_head(number: int, size: int) -> bytes:
    return _varint(_tag(number)) + _varint(size)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:  # noqa: PLR2004 seven bits to a byte
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _tag(number: int) -> int:
    return number << 3 | LENGTH_DELIMITED
