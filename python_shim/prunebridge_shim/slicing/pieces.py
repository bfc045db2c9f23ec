"""What a job is cut into: pieces, which are done or not, and stretches of them, which processes share out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.layout import Block, Cut, ShardLayout
from prunebridge_shim.slicing.sources import SourceFile

Item = TypeVar("Item")

PIECE_BYTES = 64 << 20
"""What is cut again at most for each worker of a run that was killed."""

STRETCH_BYTES = 1 << 30
"""What a process takes on at a time: a second or two of work."""


@dataclass(frozen=True)
class Part:
    """A region of one tensor."""

    cut: Cut
    region: Region


@dataclass(frozen=True)
class Piece:
    """Bytes of a shard that are cut in one go: a part of a large tensor, or several small ones.

    Attributes:
        number: Its place among all pieces of the job.
        shard: The shard's place among the job's.
        block: The place of what it is part of among the shard's blocks.
        offset: Where its bytes begin, behind the shard's header.
        bytes: How many they are.
        parts: What they are cut from, in order.
    """

    number: int
    shard: int
    block: int
    offset: int
    bytes: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Stretch:
    """Pieces of one shard in a row."""

    number: int
    shard: int
    pieces: tuple[Piece, ...]


def cut_pieces(layouts: Sequence[ShardLayout]) -> list[Piece]:
    """Cuts shards into pieces, the same ones for the same request."""
    pieces: list[Piece] = []
    for shard, layout in enumerate(layouts):
        for number, block in enumerate(layout.blocks):
            offset = block.begin
            for parts, size in _grouped(_parts_of(block), PIECE_BYTES):
                pieces.append(Piece(len(pieces), shard, number, offset, size, tuple(parts)))
                offset += size
    return pieces


def gather_stretches(pieces: Sequence[Piece]) -> list[Stretch]:
    """Groups pieces into stretches, in order."""
    stretches: list[Stretch] = []
    for shard, of_shard in groupby(pieces, lambda piece: piece.shard):
        for group, _ in _grouped(((piece, piece.bytes) for piece in of_shard), STRETCH_BYTES):
            stretches.append(Stretch(len(stretches), shard, tuple(group)))
    return stretches


def sources_of(pieces: Iterable[Piece]) -> list[SourceFile]:
    """The parent's files that pieces are cut from, each once."""
    return list(dict.fromkeys(file for piece in pieces for part in piece.parts for file in part.cut.stored.files))


def _parts_of(block: Block) -> Iterator[tuple[Part, int]]:
    for cut in block.cuts:
        for region in cut.kept.regions():
            if region.size:
                for part in region.split(max(1, PIECE_BYTES // cut.item_bytes)):
                    yield Part(cut, part), part.size * cut.item_bytes


def _grouped(sized: Iterable[tuple[Item, int]], limit: int) -> Iterator[tuple[list[Item], int]]:
    """Groups neighbours for as long as they stay within a limit together."""
    group: list[Item] = []
    total = 0
    for item, size in sized:
        if group and total + size > limit:
            yield group, total
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group, total
