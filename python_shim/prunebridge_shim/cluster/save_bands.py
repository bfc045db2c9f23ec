"""Cuts what this rank holds of a child's rows, and writes that to its place in the shards."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from prunebridge_shim.cluster.holdings import Holding
from prunebridge_shim.cluster.save_plan import Band, PlacedPart
from prunebridge_shim.slicing.request import Indices
from prunebridge_shim.slicing.shifting import shift_items

BLOCK_BYTES = 4 << 20
"""What is cut at a time: of it a rank has a few copies, and no more, beside its model."""

SHARED_BYTES = 4 << 20
"""Where several ranks hold the same rows, they share out as many bytes and more; fewer are written by one of them."""

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types of the width of an element: those move bits as they are, on every device."""

Write = Callable[[int, int, NDArray[np.uint8]], None]
"""Writes a block to a shard, at its offset behind the header."""


@dataclass(frozen=True)
class _Strip:
    """Kept rows that this rank answers for: the number of the first, and where they are within its rectangle."""

    part: PlacedPart
    holding: Holding
    first: int
    rows: Indices

    def share(self, begin: int, end: int) -> "_Strip":
        return _Strip(self.part, self.holding, self.first + begin, self.rows[begin:end])

    @cached_property
    def block_rows(self) -> int:
        """Rows that are cut at a time, by what they take before it."""
        return max(1, BLOCK_BYTES // max(1, math.prod(self.part.source.shape[1:]) * self.part.item_bytes))

    def offset(self, row: int) -> int:
        """Where in the shard the bytes of a row lie."""
        return self.part.offset + (self.first + row) * self.part.row_bytes


class BandCutter:
    """Cuts and writes bands. Ranks that hold columns of the same rows have to call it for the same bands in one order.

    Args:
        parts: The parts of the child.
        holdings: What this rank holds.
        write: Takes what is cut; it does not raise.
    """

    def __init__(self, parts: Sequence[PlacedPart], holdings: Sequence[Holding], write: Write) -> None:
        self._parts = parts
        self._held: dict[str, list[Holding]] = {}
        for holding in holdings:
            self._held.setdefault(holding.name, []).append(holding)
        self._write = write

    @torch.no_grad()
    def cut(self, band: Band) -> None:
        """Writes what this rank has to of a band."""
        part = self._parts[band.part]
        for holding in self._held.get(part.source.source_name, ()):
            strip = _own_share(_strip(part, holding, band))
            if len(strip.rows) == 0:
                continue
            if holding.split_axis is None:
                self._cut_rows(strip)
            else:
                self._exchange_rows(strip, holding.split_axis)

    def _cut_rows(self, strip: _Strip) -> None:
        kept = _kept_behind(strip, strip.holding.offset)
        for begin in range(0, len(strip.rows), strip.block_rows):
            block = _pick(strip.holding.values, strip.rows[begin : begin + strip.block_rows], kept)
            self._write_rows(strip, begin, block)

    def _exchange_rows(self, strip: _Strip, axis: int) -> None:
        """Gives each rank of the channel group the columns that its rows lack, and writes the rows of this one."""
        own, group = strip.holding.channels, strip.holding.channel_group()
        kept = _kept_behind(strip, strip.holding.offset)
        rows_each = -(-len(strip.rows) // own.size)
        ends = [min((rank + 1) * rows_each, len(strip.rows)) for rank in range(own.size)]
        begins = [min(rank * rows_each, len(strip.rows)) for rank in range(own.size)]
        row_bytes = [_row_bytes(strip, axis, rank) for rank in range(own.size)]
        for step in range(0, rows_each, strip.block_rows):
            spans = [
                (begin + step, max(begin + step, min(begin + step + strip.block_rows, end)))
                for begin, end in zip(begins, ends, strict=True)
            ]
            counts = [stop - start for start, stop in spans]
            given = _pick(strip.holding.values, np.concatenate([strip.rows[slice(*span)] for span in spans]), kept)
            got = given.new_empty(counts[own.rank] * sum(row_bytes))
            dist.all_to_all_single(
                got,
                given,
                [counts[own.rank] * size for size in row_bytes],
                [count * row_bytes[own.rank] for count in counts],
                group=group,
            )
            if counts[own.rank]:
                outer = counts[own.rank] * math.prod(strip.part.kept.shape[1:axis])
                columns = got.split([counts[own.rank] * size for size in row_bytes])
                whole = torch.cat([column.view(outer, column.numel() // outer) for column in columns], 1)
                self._write_rows(strip, spans[own.rank][0], whole.flatten())

    def _write_rows(self, strip: _Strip, row: int, block: torch.Tensor) -> None:
        source, host = strip.part.source, block.cpu().numpy()
        if source.shift:
            host = shift_items(host, source.dtype, source.shift)
        self._write(strip.part.shard, strip.offset(row), host)


def _strip(part: PlacedPart, holding: Holding, band: Band) -> _Strip:
    """The rows of a band that lie in a rectangle."""
    kept = part.kept.axes[0]
    rows = np.arange(band.begin, band.end) if kept is None else kept[band.begin : band.end]
    begin, end = np.searchsorted(rows, [holding.offset[0], holding.offset[0] + holding.values.shape[0]])
    return _Strip(part, holding, band.begin + int(begin), rows[begin:end] - holding.offset[0])


def _own_share(strip: _Strip) -> _Strip:
    """The rows that this rank answers for, of those that it and others hold."""
    copy, count = strip.holding.copy, len(strip.rows)
    if count * strip.part.row_bytes < SHARED_BYTES:
        return strip.share(0, count if strip.part.number % copy.size == copy.rank else 0)
    return strip.share(copy.rank * count // copy.size, (copy.rank + 1) * count // copy.size)


def _kept_behind(strip: _Strip, offset: Sequence[int]) -> list[torch.Tensor | None]:
    """For each axis behind the first the positions that are kept within a rectangle; none where all are."""
    values = strip.holding.values
    return [
        None if kept is None else torch.from_numpy(kept).to(values.device)
        for axis in range(1, values.ndim)
        for kept in [_kept_within(strip, axis, offset[axis])]
    ]


def _kept_within(strip: _Strip, axis: int, offset: int) -> Indices | None:
    kept = strip.part.kept.axes[axis]
    if kept is None:
        return None
    begin, end = np.searchsorted(kept, [offset, offset + strip.holding.values.shape[axis]])
    return kept[begin:end] - offset


def _row_bytes(strip: _Strip, axis: int, rank: int) -> int:
    """Bytes that a rank of the channel group has of each row."""
    held = strip.holding.values.shape[axis]
    kept = _kept_within(strip, axis, rank * held)
    shape = strip.part.kept.shape
    return (held if kept is None else len(kept)) * strip.part.row_bytes // max(1, shape[axis])


def _pick(values: torch.Tensor, rows: Indices, kept: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """The kept bytes of some rows, in row-major order."""
    bits = values.view(BITS[values.element_size()])
    first, count = int(rows[0]) if len(rows) else 0, len(rows)
    if count and int(rows[-1]) - first == count - 1:
        block = bits.narrow(0, first, count)
    else:
        block = bits.index_select(0, torch.from_numpy(rows).to(values.device))
    for axis, positions in enumerate(kept, 1):
        if positions is not None:
            # Along an inner axis, a gather takes half as long as index_select.
            every = positions.view(-1, *(1 for _ in block.shape[axis + 1 :]))
            block = block.gather(axis, every.expand(*block.shape[:axis], -1, *block.shape[axis + 1 :]))
    return block.contiguous().view(-1).view(torch.uint8)
