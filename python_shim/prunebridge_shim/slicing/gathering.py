"""Gathers what is kept from blocks in memory: by the compiled kernel where there is one, else by numpy."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.slicing.kernel import NARROW, WIDE, Kernel, load
from prunebridge_shim.slicing.request import Indices

RUN_BYTES = 96
"""Kept positions that come in longer runs are copied run by run; numpy gathers a byte in the time of a few."""

Axes = list[tuple[int, Indices | None]]
"""For each axis its length and the positions kept, None for all."""

Bytes = NDArray[np.uint8]

Buffer = Callable[[int, int], Bytes]
"""Gives one of two buffers, 1 or 2, in a length in bytes."""


class Gatherer(Protocol):
    """Gathers from blocks of rows that are cut alike."""

    def gather(self, block: Bytes, rows: Indices, buffer: Buffer) -> Bytes:
        """Gathers the kept bytes of a block.

        Args:
            block: The bytes of all its rows.
            rows: The positions of the kept ones, ascending, the first 0 and the last that of its last row.
            buffer: Gives what they are gathered into; what is returned is part of one, or the block itself.
        """


def gatherer_of(inner: Axes, item_bytes: int) -> Gatherer:
    """The fastest gatherer for rows of some axes.

    Args:
        inner: The axes of a row, the last one cut; none where rows stay whole.
        item_bytes: Bytes behind these axes that stay together.
    """
    kernel = load()
    return LineGatherer(kernel, inner, item_bytes) if kernel and inner else AxisGatherer(inner, item_bytes)


class LineGatherer:
    """Gathers along all axes at once: the same runs from each line along the last axis, by the kernel."""

    def __init__(self, kernel: Kernel, inner: Axes, item_bytes: int) -> None:
        *outer, (length, kept) = inner
        assert kept is not None, "a last axis that stays whole belongs to the items"
        self._kernel = kernel
        self._runs, self._width = _cut_runs(kept, item_bytes)
        self._kept_bytes = len(kept) * item_bytes
        self._row_bytes = length * item_bytes
        self._lines = np.zeros(1, np.int64)
        for size, positions in reversed(outer):
            self._lines = self._lines_at(np.arange(size) if positions is None else positions)
            self._row_bytes *= size

    def gather(self, block: Bytes, rows: Indices, buffer: Buffer) -> Bytes:
        """See `Gatherer`."""
        lines, runs = self._lines_at(rows), self._runs
        out = buffer(1, len(lines) * self._kept_bytes)
        self._kernel(
            *(block.ctypes.data, block.nbytes, lines.ctypes.data, len(lines)),
            *(runs.ctypes.data, len(runs), self._kept_bytes, out.ctypes.data, self._width),
        )
        return out

    def _lines_at(self, positions: Indices) -> Indices:
        """Where lines begin, in bytes, at positions of the axis before the rows so far."""
        return (positions[:, None] * self._row_bytes + self._lines).ravel()


class AxisGatherer:
    """Gathers along one axis after the other, by numpy."""

    def __init__(self, inner: Axes, item_bytes: int) -> None:
        self._inner = inner
        self._item_bytes = item_bytes

    def gather(self, block: Bytes, rows: Indices, buffer: Buffer) -> Bytes:
        """See `Gatherer`."""
        count = int(rows[-1]) + 1
        axes = [(count, None if len(rows) == count else rows), *self._inner]
        lengths = [length for length, _ in axes]
        slot = 2
        for axis, (length, kept) in enumerate(axes):
            if kept is None:
                continue
            outer, inner = math.prod(lengths[:axis]), math.prod(lengths[axis + 1 :]) * self._item_bytes
            lengths[axis] = len(kept)
            slot = 3 - slot
            out = buffer(slot, outer * len(kept) * inner)
            _pick(block.reshape(outer, length, inner), kept, out.reshape(outer, len(kept), inner))
            block = out
        return block


def _pick(items: Bytes, kept: Indices, out: Bytes) -> None:
    """Gathers the kept positions of the middle axis."""
    breaks = np.flatnonzero(np.diff(kept) != 1) + 1
    outer, count, inner = out.shape
    if outer == 1 or count * inner < RUN_BYTES * (len(breaks) + 1):
        # "wrap" spares numpy's defensive copy of `out`, and is faster than "clip"; the positions were checked.
        np.take(items, kept, axis=1, out=out, mode="wrap")
        return
    edges = [0, *breaks.tolist(), count]
    for start, stop in pairwise(edges):
        first = int(kept[start])
        out[:, start:stop] = items[:, first : first + stop - start]


def _cut_runs(kept: Indices, item_bytes: int) -> tuple[NDArray[np.uint32], int]:
    """The runs [count, 2] that the kernel copies of a line, and the width to copy them by."""
    starts = np.flatnonzero(np.diff(kept, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(kept)) * item_bytes
    width = WIDE if lengths.mean() >= WIDE else NARROW
    pieces = -(-lengths // width)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = np.stack([kept[starts] * item_bytes, starts * item_bytes], axis=1)
    return (np.repeat(begins, pieces, axis=0) + width * within[:, None]).astype(np.uint32), width
