import numpy as np
import pytest
from google.protobuf.message import DecodeError

from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, tensor_pb2
from prunebridge_shim.rpc.chunks import read_request, response_of

INFO = tensor_pb2.TensorInfo(name="x" * 200, dtype="DTYPE_U8", shape=[3, 2**40])
DATA = bytes(range(256)) * 3


def request(**fields):
    return operation_pb2.FeedRequest(**fields)


def chunk(**fields):
    return tensor_pb2.TensorChunk(**fields)


def read_whole(message):
    """What `read_request` reads, with its data put back."""
    read, data = read_request(message)
    if read.WhichOneof("part") == "chunk":
        read.chunk.data = bytes(data)
    return read


@pytest.mark.parametrize(
    "sent",
    [
        request(),
        request(feed_id="f"),
        request(chunk=chunk()),
        request(chunk=chunk(info=INFO)),
        request(chunk=chunk(data=b"\x1a")),
        request(chunk=chunk(info=INFO, data=DATA)),
        request(feed_id="f", chunk=chunk(info=INFO, offset=2**40, data=DATA)),
        request(chunk=chunk(offset=1, data=bytes(1 << 20))),
        request(batch_end=operation_pb2.BatchEnd(returns="RETURNS_LOGITS")),
        request(feed_end=operation_pb2.FeedEnd(batches=2**63)),
    ],
    ids=lambda sent: str(sent)[:40],
)
def test_a_request_reads_as_it_was_sent(sent):
    assert read_whole(sent.SerializeToString()) == sent


def test_large_data_stays_where_it_was_received():
    message = request(chunk=chunk(offset=7, data=DATA)).SerializeToString()
    read, data = read_request(message)
    assert np.shares_memory(np.frombuffer(data, "u1"), np.frombuffer(message, "u1"))
    assert read.chunk.data == b""


# Tag, length, content. Every serialiser may order fields as it likes, repeat them, and add those of a later contract.
OFFSET, DATA_FIELD, NEW_FIELD = b"\x10\x07", b"\x1a\x02hi", b"\x79" + bytes(8)
FEED_ID, BATCH_END = b"\x0a\x01f", b"\x1a\x00"


def in_chunk(content):
    return b"\x12" + bytes([len(content)]) + content


@pytest.mark.parametrize(
    "message",
    [
        in_chunk(DATA_FIELD + OFFSET),
        in_chunk(OFFSET + DATA_FIELD) + FEED_ID,
        in_chunk(DATA_FIELD + b"\x1a\x05later"),
        in_chunk(b"\x1a\x05other" + OFFSET) + in_chunk(DATA_FIELD),
        in_chunk(OFFSET + DATA_FIELD) + BATCH_END,
        BATCH_END + in_chunk(OFFSET + DATA_FIELD),
        in_chunk(NEW_FIELD + DATA_FIELD),
        in_chunk(b"\x7d" + bytes(4) + DATA_FIELD),
        NEW_FIELD + in_chunk(DATA_FIELD + NEW_FIELD),
        in_chunk(b"\x7b\x7c" + DATA_FIELD),
        NEW_FIELD * 1000 + in_chunk(DATA_FIELD),
    ],
)
def test_other_orders_read_as_generated_code_reads_them(message):
    assert read_whole(message) == operation_pb2.FeedRequest.FromString(message)


def test_many_fields_are_left_to_generated_code():
    assert read_request(in_chunk(NEW_FIELD * 3 + DATA_FIELD)).request.chunk.data == b""
    assert read_request(in_chunk(NEW_FIELD * 4 + DATA_FIELD)).request.chunk.data == b"hi"


def test_garbled_messages_read_as_generated_code_reads_them(rng):
    info = tensor_pb2.TensorInfo(name="x", dtype="DTYPE_U8", shape=[3])
    sound = request(feed_id="f", chunk=chunk(info=info, offset=5, data=b"abc")).SerializeToString()
    outcomes = []
    for _ in range(3000):
        message = bytearray(sound)
        message[rng.integers(0, len(message))] = rng.integers(0, 256)
        garbled = bytes(message[: rng.choice([len(message), rng.integers(0, len(message))])])
        try:
            expected = operation_pb2.FeedRequest.FromString(garbled)
        except DecodeError:
            expected = None
            with pytest.raises(DecodeError):
                read_request(garbled)
        else:
            assert read_whole(garbled) == expected
        outcomes.append(expected is None)
    assert 500 < sum(outcomes) < 2500  # refused


def test_a_varint_without_end_is_refused():
    with pytest.raises(DecodeError):
        read_request(b"\x80" * (1 << 20))


@pytest.mark.parametrize("data", [b"", b"x", DATA, bytes(1 << 20)], ids=len)
@pytest.mark.parametrize("head", [chunk(), chunk(info=INFO), chunk(offset=2**40)], ids=["bare", "info", "offset"])
def test_a_response_is_one_of_the_contract(head, data):
    message = response_of(head, memoryview(data))
    expected = chunk()
    expected.CopyFrom(head)
    expected.data = data
    assert operation_pb2.FeedResponse.FromString(message).chunk == expected
    assert operation_pb2.ReadResultResponse.FromString(message).chunk == expected
