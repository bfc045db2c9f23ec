"""Tensors to and from chunks."""

from collections.abc import Iterator

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import tensor_pb2
from prunebridge_shim.rpc.chunks import response_of
from prunebridge_shim.rpc.limits import BatchRoom
from prunebridge_shim.rpc.options import CHUNK_BYTES
from prunebridge_shim.tensors import Batch, HostTensor, byte_length, is_packed

MAX_AXES = 64


def dtype_of(wire: int, name: str) -> str:
    """The safetensors spelling of a wire dtype; raises BAD_TENSOR for one that is unknown."""
    if wire == tensor_pb2.DTYPE_UNSPECIFIED or wire not in tensor_pb2.Dtype.values():
        raise ShimError(Reason.BAD_TENSOR, f"tensor {name!r} has the unknown dtype {wire}")
    return tensor_pb2.Dtype.Name(wire).removeprefix("DTYPE_")


def info_of(name: str, tensor: HostTensor) -> tensor_pb2.TensorInfo:
    """Describes a tensor for the wire."""
    return tensor_pb2.TensorInfo(name=name, dtype=f"DTYPE_{tensor.dtype}", shape=tensor.shape)


def responses_of(name: str, tensor: HostTensor) -> Iterator[bytes]:
    """Cuts a tensor's bytes into chunks, at least one, the first of which describes it; gives their responses."""
    data = tensor.raw
    yield response_of(tensor_pb2.TensorChunk(info=info_of(name, tensor)), data[:CHUNK_BYTES])
    for offset in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
        yield response_of(tensor_pb2.TensorChunk(offset=offset), data[offset : offset + CHUNK_BYTES])


class BatchAssembler:
    """Puts the chunks of one batch after the other together, and takes nothing that is out of place."""

    def __init__(self) -> None:
        self._batch: dict[str, HostTensor] = {}
        self._pending: _Pending | None = None
        self._room = BatchRoom()

    def add(self, chunk: tensor_pb2.TensorChunk, data: bytes | memoryview) -> None:
        """Takes the next chunk and its data.

        Raises:
            ShimError: INVALID_REQUEST for a chunk out of place, BAD_TENSOR for a tensor that cannot be, LIMIT_EXCEEDED
                for a batch that would grow too large.
        """
        if chunk.HasField("info"):
            self._check_complete()
            if chunk.info.name in self._batch:
                raise _misplaced(f"the batch has two tensors of the name {chunk.info.name!r}")
            self._pending = _Pending(chunk.info, self._room)
        if self._pending is None:
            raise _misplaced("the first chunk of a tensor does not say which it is")
        self._pending.fill(chunk.offset, data)
        if self._pending.complete:
            self._batch[self._pending.name] = self._pending.tensor
            self._pending = None

    def end_batch(self) -> Batch:
        """Gives the batch that the chunks so far make up, and begins the next; raises INVALID_REQUEST."""
        self._check_complete()
        batch, self._batch, self._room = self._batch, {}, BatchRoom()
        return batch

    def end_stream(self) -> None:
        """Checks that no batch was left open; raises INVALID_REQUEST."""
        self._check_complete()
        if self._batch:
            raise _misplaced(f"the feed ended within a batch, after {', '.join(self._batch)}")

    def _check_complete(self) -> None:
        if self._pending is not None:
            raise _misplaced(f"{self._pending} is cut short")


class _Pending:
    """A tensor of which chunks are still to come."""

    def __init__(self, info: tensor_pb2.TensorInfo, room: BatchRoom) -> None:
        self.name = info.name
        dtype, shape = dtype_of(info.dtype, info.name), tuple(info.shape)
        if is_packed(dtype):
            raise ShimError(Reason.BAD_TENSOR, f"tensor {info.name!r} is packed {dtype}, which no batch may hold")
        if len(shape) > MAX_AXES:
            raise ShimError(Reason.BAD_TENSOR, f"tensor {info.name!r} has {len(shape)} axes; {MAX_AXES} are the most")
        self._size = byte_length(dtype, shape)
        room.take(info.name, self._size)
        self.tensor = HostTensor.empty(dtype, shape)
        self._filled = 0

    @property
    def complete(self) -> bool:
        return self._filled == self._size

    def fill(self, offset: int, data: bytes | memoryview) -> None:
        end = offset + len(data)
        if offset != self._filled or end > self._size:
            raise _misplaced(f"a chunk for bytes {offset} to {end} does not continue {self}")
        self.tensor.overwrite(offset, data)
        self._filled = end

    def __str__(self) -> str:
        return f"tensor {self.name!r} ({self._filled:,} of {self._size:,} bytes so far)"


def _misplaced(message: str) -> ShimError:
    return ShimError(Reason.INVALID_REQUEST, message, "send each tensor whole, in order and without gaps")
