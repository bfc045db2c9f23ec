"""Tensors to and from chunks."""

from collections.abc import Iterator

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import tensor_pb2
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


def chunks_of(name: str, tensor: HostTensor) -> Iterator[tensor_pb2.TensorChunk]:
    """Cuts a tensor's bytes into chunks: at least one, the first of which describes it."""
    data = tensor.array.reshape(-1).view("u1").data
    yield tensor_pb2.TensorChunk(info=info_of(name, tensor), data=bytes(data[:CHUNK_BYTES]))
    for offset in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
        yield tensor_pb2.TensorChunk(offset=offset, data=bytes(data[offset : offset + CHUNK_BYTES]))


class BatchAssembler:
    """Puts the chunks of one batch after the other together, and takes nothing that is out of place."""

    def __init__(self) -> None:
        self._batch: dict[str, HostTensor] = {}
        self._pending: _Pending | None = None
        self._room = BatchRoom()

    def add(self, chunk: tensor_pb2.TensorChunk) -> None:
        """Takes the next chunk.

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
        self._pending.fill(chunk)
        if self._pending.complete:
            self._batch[self._pending.name] = self._pending.tensor()
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
        self._dtype = dtype_of(info.dtype, info.name)
        self._shape = tuple(info.shape)
        if is_packed(self._dtype):
            raise ShimError(Reason.BAD_TENSOR, f"tensor {info.name!r} is packed {self._dtype}, which no batch may hold")
        if len(self._shape) > MAX_AXES:
            raise ShimError(
                Reason.BAD_TENSOR, f"tensor {info.name!r} has {len(self._shape)} axes; {MAX_AXES} are the most"
            )
        size = byte_length(self._dtype, self._shape)
        room.take(info.name, size)
        self._data = bytearray(size)
        self._filled = 0

    @property
    def complete(self) -> bool:
        return self._filled == len(self._data)

    def fill(self, chunk: tensor_pb2.TensorChunk) -> None:
        end = chunk.offset + len(chunk.data)
        if chunk.offset != self._filled or end > len(self._data):
            raise _misplaced(f"a chunk for bytes {chunk.offset} to {end} does not continue {self}")
        self._data[chunk.offset : end] = chunk.data
        self._filled = end

    def tensor(self) -> HostTensor:
        return HostTensor.of(self._dtype, self._shape, self._data)

    def __str__(self) -> str:
        return f"tensor {self.name!r} ({self._filled:,} of {len(self._data):,} bytes so far)"


def _misplaced(message: str) -> ShimError:
    return ShimError(Reason.INVALID_REQUEST, message, "send each tensor whole, in order and without gaps")
