"""From a request and the parent's headers to what is read from where and written to where."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import StoredTensor, build_header
from prunebridge_shim.slicing.kept import Kept, find_kept
from prunebridge_shim.slicing.packed import in_units, unit_of
from prunebridge_shim.slicing.request import IndexSets, OutputShard, TensorSlice
from prunebridge_shim.slicing.sources import Source, plain_name
from prunebridge_shim.tensors import byte_length, describe


@dataclass(frozen=True)
class Cut:
    """One tensor's way: where it is read, and which positions are kept."""

    source: Source
    stored: StoredTensor
    kept: Kept
    item_bytes: int


@dataclass(frozen=True)
class ShardLayout:
    """One file to write: its header, and the tensors whose kept bytes follow it."""

    file: str
    header: bytes
    cuts: tuple[Cut, ...]
    bytes: int


def lay_out(shard: OutputShard, sources: Mapping[str, Source], sets: IndexSets) -> ShardLayout:
    """Checks a shard's tensors against the parent and the index sets, and places them.

    Raises:
        ShimError: BAD_TENSOR or INVALID_REQUEST where they do not agree.
    """
    if not shard.tensors:
        raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has no tensors")
    described: dict[str, tuple[str, tuple[int, ...]]] = {}
    cuts = []
    for tensor in shard.tensors:
        if tensor.name in described:
            raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has two tensors of the name {tensor.name}")
        source = sources[tensor.source_file]
        stored = _find(tensor, source)
        kept = find_kept(tensor, sets)
        described[tensor.name] = (stored.dtype, kept.shape)
        _, unit_bytes = unit_of(stored.dtype)
        cuts.append(Cut(source, stored, in_units(kept, stored.dtype, tensor.source_name), unit_bytes))
    header = build_header(described, shard.metadata)
    size = len(header) + sum(byte_length(dtype, shape) for dtype, shape in described.values())
    return ShardLayout(plain_name(shard.file), header, tuple(cuts), size)


def _find(tensor: TensorSlice, source: Source) -> StoredTensor:
    stored = source.tensors.get(tensor.source_name)
    if stored is None:
        raise ShimError(Reason.BAD_TENSOR, f"{tensor.source_file} has no tensor {tensor.source_name}")
    if (stored.dtype, stored.shape) != (tensor.dtype, tensor.shape):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{tensor.source_name} in {tensor.source_file} is {describe(stored.dtype, stored.shape)}"
            f" where the request says {describe(tensor.dtype, tensor.shape)}",
            "the parent has changed since it was inspected: inspect it again",
        )
    return stored
