"""From a request and the parent's headers to what is read from where and written to where."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.gathering import Bytes
from prunebridge_shim.slicing.headers import build_header
from prunebridge_shim.slicing.kept import Kept, Region, find_kept
from prunebridge_shim.slicing.packed import in_units, unit_of
from prunebridge_shim.slicing.parents import Parent
from prunebridge_shim.slicing.request import IndexSets, OutputShard, TensorPart, TensorSlice
from prunebridge_shim.slicing.shifting import check_shift, shift_items
from prunebridge_shim.slicing.sources import plain_name
from prunebridge_shim.slicing.stored import Stored
from prunebridge_shim.tensors import byte_length, describe


@dataclass(frozen=True)
class Cut:
    """One tensor's way, or one part's: where it is read, what is kept of it, and what is added to each element."""

    stored: Stored
    kept: Kept
    item_bytes: int
    shift: float = 0.0

    def read(self, reader: BlockReader, region: Region) -> Iterator[Bytes]:
        """Yields the bytes of a region as the child has them; each block is valid until the next."""
        read = self.stored.read(reader, region, self.item_bytes)
        return (shift_items(block, self.stored.dtype, self.shift) for block in read) if self.shift else read


@dataclass(frozen=True)
class Block:
    """Bytes that lie behind each other in a shard: where they begin, behind its header, and what they are cut from."""

    begin: int
    cuts: tuple[Cut, ...]


Around = Callable[[Sequence[int]], list[tuple[int, bytes]]]
"""From the CRC-32 of each block, what else lies behind a shard's header: stretches by where they begin."""


@dataclass(frozen=True)
class ShardLayout:
    """One file to write: its header, and the tensors whose kept bytes follow it, maybe with more around them."""

    file: str
    header: bytes
    blocks: tuple[Block, ...]
    bytes: int
    around: Around


@dataclass(frozen=True)
class CutTensor:
    """A tensor of the child, checked against the parent and the index sets."""

    slice: TensorSlice
    dtype: str
    shape: tuple[int, ...]
    cuts: tuple[Cut, ...]

    @property
    def bytes(self) -> int:
        """How many its elements take."""
        return byte_length(self.dtype, self.shape)


def lay_out(shard: OutputShard, parents: Mapping[str, Parent], sets: IndexSets) -> ShardLayout:
    """Checks the tensors of a safetensors shard against the parent and the index sets, and places them.

    Raises:
        ShimError: BAD_TENSOR or INVALID_REQUEST where they do not agree.
    """
    tensors = cut_tensors(shard, parents, sets)
    header = build_header({tensor.slice.name: (tensor.dtype, tensor.shape) for tensor in tensors}, shard.metadata)
    block = Block(0, tuple(cut for tensor in tensors for cut in tensor.cuts))
    size = len(header) + sum(tensor.bytes for tensor in tensors)
    return ShardLayout(plain_name(shard.file), header, (block,), size, lambda _: [])


def cut_tensors(shard: OutputShard, parents: Mapping[str, Parent], sets: IndexSets) -> list[CutTensor]:
    """Checks a shard's tensors against the parent and the index sets; raises as `lay_out`."""
    if not shard.tensors:
        raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has no tensors")
    named = set()
    for tensor in shard.tensors:
        if (tensor.name, tensor.index) in named:
            raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has two tensors of the name {tensor.name}")
        named.add((tensor.name, tensor.index))
    return [_cut_tensor(tensor, parents, sets) for tensor in shard.tensors]


def _cut_tensor(tensor: TensorSlice, parents: Mapping[str, Parent], sets: IndexSets) -> CutTensor:
    """The element type and the shape of a tensor, and the cuts that lie behind each other in it."""
    if not tensor.parts:
        raise ShimError(Reason.INVALID_REQUEST, f"{tensor.name} has no parts")
    cuts, shapes = [], []
    for part in tensor.parts:
        stored = _find(part, parents[part.source_file])
        kept = find_kept(tensor.name, part, sets)
        check_shift(part)
        _, unit_bytes = unit_of(stored.dtype)
        cuts.append(Cut(stored, in_units(kept, stored.dtype, part.source_name), unit_bytes, part.shift))
        shapes.append(kept.shape)
    return CutTensor(tensor, tensor.parts[0].dtype, _join_shapes(tensor, shapes), tuple(cuts))


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


def _find(part: TensorPart, parent: Parent) -> Stored:
    stored = parent.find(part)
    if (stored.dtype, stored.shape) != (part.dtype, part.shape):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{part.source_name} in {part.source_file} is {describe(stored.dtype, stored.shape)}"
            f" where the request says {describe(part.dtype, part.shape)}",
            "the parent has changed since it was inspected: inspect it again",
        )
    return stored
