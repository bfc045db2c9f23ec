"""Cuts what this rank holds of a child's rows, and writes that to its place in the shards."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from prunebridge_shim.cluster.holdings import Holding
from prunebridge_shim.cluster.save_plan import PlacedPart
from prunebridge_shim.cluster.save_rounds import Band
from prunebridge_shim.cluster.save_strips import Strip
from prunebridge_shim.slicing.shifting import shift_items

Write = Callable[[int, int, NDArray[np.uint8]], None]
"""Writes a block to a shard, at its offset behind the header."""


class BandCutter:
    """Cuts and writes bands. Ranks that hold columns of the same rows have to call it for the same bands in one order.

    Args:
        parts: The parts of the child.
        holdings: What this rank holds.
        write: Takes what is cut. It does not raise: others may be waiting for this rank's columns.
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
            strip = Strip.within(part, holding, band).own_share()
            if len(strip.rows) == 0:
                continue
            if holding.split_axis is None:
                self._cut_rows(strip)
            else:
                self._exchange_rows(strip, holding.split_axis)

    def _cut_rows(self, strip: Strip) -> None:
        for begin in range(0, len(strip.rows), strip.block_rows):
            self._write_rows(strip, begin, strip.pick(strip.rows[begin : begin + strip.block_rows]))

    def _exchange_rows(self, strip: Strip, axis: int) -> None:
        """Gives each rank of the channel group the columns that its rows lack, and writes the rows of this one."""
        own, group = strip.holding.channels, strip.holding.channel_group()
        row_bytes = [strip.row_bytes(axis, rank) for rank in range(own.size)]
        rows_each = -(-len(strip.rows) // own.size)
        shares = [range(rank * rows_each, (rank + 1) * rows_each) for rank in range(own.size)]
        for step in range(0, rows_each, strip.block_rows):
            # The last of them may have fewer rows, or none.
            blocks = [strip.rows[share[step] : share[step : step + strip.block_rows][-1] + 1] for share in shares]
            counts = [len(block) for block in blocks]
            sizes = [counts[own.rank] * size for size in row_bytes]
            given = strip.pick(np.concatenate(blocks))
            got = given.new_empty(sum(sizes))
            dist.all_to_all_single(got, given, sizes, [count * row_bytes[own.rank] for count in counts], group=group)
            if counts[own.rank]:
                outer = counts[own.rank] * math.prod(strip.part.kept.shape[1:axis])
                columns = [column.view(outer, column.numel() // outer) for column in got.split(sizes)]
                self._write_rows(strip, shares[own.rank][step], torch.cat(columns, 1).flatten())

    def _write_rows(self, strip: Strip, row: int, block: torch.Tensor) -> None:
        source, host = strip.part.source, block.cpu().numpy()
        if source.shift:
            host = shift_items(host, source.dtype, source.shift)
        self._write(strip.part.shard, strip.offset(row), host)
