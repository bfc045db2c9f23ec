"""Rows of a child that one rank answers for, and how they are picked out of what it holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from prunebridge_shim.cluster.holdings import Holding
from prunebridge_shim.cluster.save_plan import PlacedPart
from prunebridge_shim.cluster.save_rounds import Band
from prunebridge_shim.slicing.request import Indices

BLOCK_BYTES = 4 << 20
"""What is cut at a time: of it a rank has a few copies, and no more, beside its model."""

SHARED_BYTES = 4 << 20
"""Where several ranks hold the same rows, they share out as many bytes and more; fewer are written by one of them."""

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types of the width of an element: those move bits as they are, on every device."""


@dataclass(frozen=True)
class Strip:
    """Kept rows of a rectangle.

    Attributes:
        part: The part of the child that they are of.
        holding: The rectangle.
        first: The number of the first of them in the part.
        rows: Where they are within the rectangle.
    """

    part: PlacedPart
    holding: Holding
    first: int
    rows: Indices

    @classmethod
    def within(cls, part: PlacedPart, holding: Holding, band: Band) -> "Strip":
        """The rows of a band that lie in a rectangle."""
        kept = part.kept.axes[0]
        rows = np.arange(band.begin, band.end) if kept is None else kept[band.begin : band.end]
        begin, end = np.searchsorted(rows, [holding.offset[0], holding.offset[0] + holding.values.shape[0]])
        return cls(part, holding, band.begin + int(begin), rows[begin:end] - holding.offset[0])

    def own_share(self) -> "Strip":
        """The rows that this rank answers for, of those that it and others hold."""
        copy, count = self.holding.copy, len(self.rows)
        if count * self.part.row_bytes < SHARED_BYTES:
            return self._share(0, count if self.part.number % copy.size == copy.rank else 0)
        return self._share(copy.rank * count // copy.size, (copy.rank + 1) * count // copy.size)

    @cached_property
    def block_rows(self) -> int:
        """Rows that are cut at a time, by what they take before it."""
        return max(1, BLOCK_BYTES // max(1, math.prod(self.part.source.shape[1:]) * self.part.item_bytes))

    def offset(self, row: int) -> int:
        """Where in the shard the bytes of a row lie."""
        return self.part.offset + (self.first + row) * self.part.row_bytes

    def row_bytes(self, axis: int, rank: int) -> int:
        """Bytes that a rank of the channel group, which shares out an axis, has of each row."""
        held = self.holding.values.shape[axis]
        kept = self._kept(axis, rank * held)
        size = self.part.kept.shape[axis]
        return (held if kept is None else len(kept)) * self.part.row_bytes // max(1, size)

    @cached_property
    def kept_behind(self) -> Sequence[torch.Tensor | None]:
        """For each axis behind the first the positions that are kept within the rectangle; none where all are."""
        values, offset = self.holding.values, self.holding.offset
        kept = (self._kept(axis, offset[axis]) for axis in range(1, values.ndim))
        return [None if positions is None else torch.from_numpy(positions).to(values.device) for positions in kept]

    def pick(self, rows: Indices) -> torch.Tensor:
        """The kept bytes of some of its rows, given in ascending order, in row-major order."""
        bits = self.holding.values.view(BITS[self.holding.values.element_size()])
        first, count = int(rows[0]) if len(rows) else 0, len(rows)
        if count and int(rows[-1]) - first == count - 1:
            block = bits.narrow(0, first, count)
        else:
            block = bits.index_select(0, torch.from_numpy(rows).to(bits.device))
        for axis, positions in enumerate(self.kept_behind, 1):
            if positions is not None:
                # Along an inner axis, a gather takes half as long as index_select.
                every = positions.view(-1, *(1 for _ in block.shape[axis + 1 :]))
                block = block.gather(axis, every.expand(*block.shape[:axis], -1, *block.shape[axis + 1 :]))
        return block.contiguous().view(-1).view(torch.uint8)

    def _share(self, begin: int, end: int) -> "Strip":
        return Strip(self.part, self.holding, self.first + begin, self.rows[begin:end])

    def _kept(self, axis: int, offset: int) -> Indices | None:
        kept = self.part.kept.axes[axis]
        if kept is None:
            return None
        begin, end = np.searchsorted(kept, [offset, offset + self.holding.values.shape[axis]])
        return kept[begin:end] - offset
