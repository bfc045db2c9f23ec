"""From a request and the parent's headers to what is read from where and written to where."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.described import DescribedPart, DescribedShard
from prunebridge_shim.slicing.headers import StoredTensor
from prunebridge_shim.slicing.kept import Kept
from prunebridge_shim.slicing.packed import in_units, unit_of
from prunebridge_shim.slicing.request import TensorPart
from prunebridge_shim.slicing.sources import Source
from prunebridge_shim.tensors import describe


@dataclass(frozen=True)
class Cut:
    """One tensor's way, or one part's: where it is read, and which positions are kept."""

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


def lay_out(shard: DescribedShard, sources: Mapping[str, Source]) -> ShardLayout:
    """Finds a shard's tensors in the parent; raises BAD_TENSOR where they are not there, or other ones."""
    cuts = tuple(_cut(described, sources[described.part.source_file]) for described in shard.parts)
    return ShardLayout(shard.file, shard.header, cuts, shard.bytes)


def _cut(described: DescribedPart, source: Source) -> Cut:
    stored = _find(described.part, source)
    _, unit_bytes = unit_of(stored.dtype)
    return Cut(source, stored, in_units(described.kept, stored.dtype, described.part.source_name), unit_bytes)


def _find(part: TensorPart, source: Source) -> StoredTensor:
    stored = source.tensors.get(part.source_name)
    if stored is None:
        raise ShimError(Reason.BAD_TENSOR, f"{part.source_file} has no tensor {part.source_name}")
    if (stored.dtype, stored.shape) != (part.dtype, part.shape):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{part.source_name} in {part.source_file} is {describe(stored.dtype, stored.shape)}"
            f" where the request says {describe(part.dtype, part.shape)}",
            "the parent has changed since it was inspected: inspect it again",
        )
    return stored
