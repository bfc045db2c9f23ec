"""A tensor of the parent, wherever it lies."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.gathering import Bytes
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.sources import SourceFile

Read = Callable[[BlockReader, Region, int], Iterator[Bytes]]
"""`read(reader, region, item_bytes)` yields what is kept of a region in row-major order; each block is valid until the
next."""


@dataclass(frozen=True)
class Stored:
    """What is known of a stored tensor: its element type, as safetensors spells it, its shape, and where it is read."""

    dtype: str
    shape: tuple[int, ...]
    files: Sequence[SourceFile]
    read: Read
