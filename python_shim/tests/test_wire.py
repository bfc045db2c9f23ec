import numpy as np
import pytest
from client import chunk

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, tensor_pb2
from prunebridge_shim.rpc.options import CHUNK_BYTES
from prunebridge_shim.rpc.wire import BatchAssembler, responses_of
from prunebridge_shim.tensors import ITEM_BITS, HostTensor, is_packed

IDS = np.arange(6, dtype=np.int64).reshape(2, 3)


def info(dtype="DTYPE_I64", shape=(2, 3), name="a"):
    return tensor_pb2.TensorInfo(name=name, dtype=dtype, shape=shape)


def add(assembler, *chunks):
    for piece in chunks:
        assembler.add(piece, piece.data)


WHOLE = [dtype for dtype in ITEM_BITS if not is_packed(dtype)]
SHAPES = [(), (0, 4), (5,), (3, CHUNK_BYTES // 8), (2 * CHUNK_BYTES // 8,), (CHUNK_BYTES,), (CHUNK_BYTES + 1,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", WHOLE)
def test_tensors_survive_the_way(rng, dtype, shape):
    sent = HostTensor.empty(dtype, shape)
    sent.overwrite(0, rng.bytes(len(sent.raw)))
    assembler = BatchAssembler()
    for response in responses_of("x", sent):
        piece = operation_pb2.FeedResponse.FromString(response).chunk
        assert len(piece.data) <= CHUNK_BYTES
        add(assembler, piece)
    tensor = assembler.end_batch()["x"]
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    assert tensor.raw == sent.raw


def test_arrays_of_any_layout_are_sent_row_by_row():
    columns = np.asfortranarray(np.arange(6).reshape(2, 3))
    (response,) = responses_of("x", HostTensor("I64", columns))
    assert operation_pb2.FeedResponse.FromString(response).chunk.data == np.arange(6).tobytes()


def test_types_that_numpy_lacks_keep_their_bits():
    assembler = BatchAssembler()
    add(assembler, tensor_pb2.TensorChunk(info=info("DTYPE_BF16", (2,)), data=b"\x80\x3f\xff\x7f"))
    tensor = assembler.end_batch()["a"]
    assert (tensor.dtype, tensor.array.tolist()) == ("BF16", [0x3F80, 0x7FFF])


@pytest.mark.parametrize(
    ("pieces", "reason", "says"),
    [
        ([tensor_pb2.TensorChunk(data=b"x")], Reason.INVALID_REQUEST, "does not say which"),
        ([chunk("a", IDS, data=b"x" * 49)], Reason.INVALID_REQUEST, "bytes 0 to 49"),
        ([chunk("a", IDS, offset=8, data=b"x" * 8)], Reason.INVALID_REQUEST, "bytes 8 to 16"),
        (
            [chunk("a", IDS, data=b"x" * 8), tensor_pb2.TensorChunk(offset=4, data=b"x")],
            Reason.INVALID_REQUEST,
            "8 of 48",
        ),
        ([chunk("a", IDS, data=b"x" * 8), chunk("b", IDS)], Reason.INVALID_REQUEST, "cut short"),
        ([chunk("a", IDS, data=b"x" * 8)], Reason.INVALID_REQUEST, "cut short"),
        ([chunk("a", IDS), chunk("a", IDS)], Reason.INVALID_REQUEST, "two tensors"),
        ([tensor_pb2.TensorChunk(info=info("DTYPE_UNSPECIFIED"))], Reason.BAD_TENSOR, "unknown dtype 0"),
        ([tensor_pb2.TensorChunk(info=info(99))], Reason.BAD_TENSOR, "unknown dtype 99"),
        ([tensor_pb2.TensorChunk(info=info(shape=[1] * 65))], Reason.BAD_TENSOR, "65 axes"),
        ([tensor_pb2.TensorChunk(info=info(shape=[2**63, 2**63]))], Reason.LIMIT_EXCEEDED, "has more than"),
    ],
)
def test_what_is_out_of_place_is_refused(pieces, reason, says):
    assembler = BatchAssembler()
    with pytest.raises(ShimError, match=says) as caught:
        add(assembler, *pieces)
        assembler.end_batch()
    assert caught.value.reason is reason


def test_a_feed_must_not_end_within_a_batch():
    assembler = BatchAssembler()
    add(assembler, chunk("a", IDS))
    with pytest.raises(ShimError, match="within a batch, after a"):
        assembler.end_stream()
