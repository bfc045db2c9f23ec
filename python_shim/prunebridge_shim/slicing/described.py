"""What shards will be, from a request and its index sets alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import build_header
from prunebridge_shim.slicing.kept import Kept, find_kept
from prunebridge_shim.slicing.request import IndexSets, OutputShard, TensorPart, TensorSlice
from prunebridge_shim.slicing.sources import plain_name
from prunebridge_shim.tensors import byte_length, describe


@dataclass(frozen=True)
class DescribedPart:
    """A part of a tensor of the child, and what is kept of its source."""

    part: TensorPart
    kept: Kept


@dataclass(frozen=True)
class DescribedShard:
    """One file to write: its name, its header, the parts whose bytes follow that in order, and all its bytes."""

    file: str
    header: bytes
    parts: tuple[DescribedPart, ...]
    bytes: int


def describe_shards(shards: Sequence[OutputShard], sets: IndexSets) -> list[DescribedShard]:
    """Checks shards against the index sets, and places their tensors.

    Raises:
        ShimError: BAD_TENSOR or INVALID_REQUEST where they do not agree, PATH_DENIED for a name that is no file's.
    """
    names = [shard.file for shard in shards]
    if len(set(names)) < len(names):
        raise ShimError(Reason.INVALID_REQUEST, f"two shards have one name: {', '.join(sorted(names))}")
    return [_describe_shard(shard, sets) for shard in shards]


def _describe_shard(shard: OutputShard, sets: IndexSets) -> DescribedShard:
    if not shard.tensors:
        raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has no tensors")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    described: list[DescribedPart] = []
    for tensor in shard.tensors:
        if tensor.name in tensors:
            raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has two tensors of the name {tensor.name}")
        if not tensor.parts:
            raise ShimError(Reason.INVALID_REQUEST, f"{tensor.name} has no parts")
        parts = [DescribedPart(part, find_kept(tensor.name, part, sets)) for part in tensor.parts]
        tensors[tensor.name] = (tensor.parts[0].dtype, _join_shapes(tensor, [part.kept.shape for part in parts]))
        described += parts
    header = build_header(tensors, shard.metadata)
    size = len(header) + sum(byte_length(dtype, shape) for dtype, shape in tensors.values())
    return DescribedShard(plain_name(shard.file), header, tuple(described), size)


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
