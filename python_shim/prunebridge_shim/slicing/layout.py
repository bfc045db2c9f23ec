"""From a request and the parent's headers to what is read from where and written to where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import StoredTensor, build_header
from prunebridge_shim.slicing.kept import Kept, find_kept
from prunebridge_shim.slicing.packed import in_units, unit_of
from prunebridge_shim.slicing.request import IndexSets, OutputShard, TensorPart, TensorSlice
from prunebridge_shim.slicing.sources import Source, plain_name
from prunebridge_shim.tensors import byte_length, describe


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
        dtype, shape, parts = _cut_parts(tensor, sources, sets)
        described[tensor.name] = (dtype, shape)
        cuts += parts
    header = build_header(described, shard.metadata)
    size = len(header) + sum(byte_length(dtype, shape) for dtype, shape in described.values())
    return ShardLayout(plain_name(shard.file), header, tuple(cuts), size)


def _cut_parts(
    tensor: TensorSlice, sources: Mapping[str, Source], sets: IndexSets
) -> tuple[str, tuple[int, ...], list[Cut]]:
    """The element type and the shape of a tensor, and the cuts that lie behind each other in it."""
    if not tensor.parts:
        raise ShimError(Reason.INVALID_REQUEST, f"{tensor.name} has no parts")
    cuts, shapes = [], []
    for part in tensor.parts:
        source = sources[part.source_file]
        stored = _find(part, source)
        kept = find_kept(tensor.name, part, sets)
        _, unit_bytes = unit_of(stored.dtype)
        cuts.append(Cut(source, stored, in_units(kept, stored.dtype, part.source_name), unit_bytes))
        shapes.append(kept.shape)
    return tensor.parts[0].dtype, _join_shapes(tensor, shapes), cuts


def _join_shapes(tensor: TensorSlice, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) == 1:
        return shapes[0]
    kinds = {(part.dtype, shape[1:], len(shape)) for part, shape in zip(tensor.parts, shapes, strict=True)}
    if len(kinds) > 1 or not shapes[0]:
        made = ", ".join(describe(part.dtype, shape) for part, shape in zip(tensor.parts, shapes, strict=True))
        raise ShimError(
            Reason.BAD_TENSOR,
            f"the parts of {tensor.name} cannot be joined: they are cut to {made}",
            "parts differ along the first axis alone",
        )
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


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
