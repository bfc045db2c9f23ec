"""Reads a stored tensor in blocks and gathers what is kept, in a few blocks of memory.

A tensor is seen as bytes: axes of which positions are kept, around items of consecutive bytes that stay together. Bits
pass through as they are, whatever the element type.
"""

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from prunebridge_shim.slicing.gathering import Axes, Bytes, gatherer_of
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.request import Indices

BLOCK_BYTES = 2 << 20
"""Bytes read at a time; larger blocks fall out of the cache between reading, gathering and writing."""

SKIP_BYTES = 1 << 20
"""Dropped stretches shorter than this are read over: a seek costs more."""


class BlockReader:
    """Reads kept blocks from open files, with buffers that serve one tensor after the other. One for each thread."""

    def __init__(self) -> None:
        self._buffers: dict[int, Bytes] = {}

    def read(self, fd: int, offset: int, region: Region, item_bytes: int) -> Iterator[Bytes]:
        """Yields the kept bytes of a region in row-major order; each block is valid until the next.

        Args:
            fd: The file, open for reading.
            offset: Where in it the region begins.
            region: The region, with positions that were checked against its shape.
            item_bytes: Bytes of one element.

        Raises:
            EOFError: the file ends before the region does.
        """
        if region.size:
            axes, item_bytes = _merge(region.shape, region.axes, item_bytes)
            yield from self._walk(fd, offset, axes, item_bytes)

    def _walk(self, fd: int, offset: int, axes: Axes, item_bytes: int) -> Iterator[Bytes]:
        if not axes:
            yield from self._copy(fd, offset, item_bytes)
            return
        (size, kept), inner = axes[0], axes[1:]
        row_bytes = math.prod(length for length, _ in inner) * item_bytes
        if row_bytes > BLOCK_BYTES:
            for position in range(size) if kept is None else kept.tolist():
                yield from self._walk(fd, offset + position * row_bytes, inner, item_bytes)
            return
        positions = np.arange(size) if kept is None else kept
        gatherer = gatherer_of(inner, item_bytes)
        for rows in _row_blocks(positions, row_bytes):
            first, count = int(rows[0]), int(rows[-1] - rows[0]) + 1
            block = self._buffer(0, count * row_bytes)
            _fill(fd, block, offset + first * row_bytes)
            yield gatherer.gather(block, rows - first, self._buffer)

    def _copy(self, fd: int, offset: int, count: int) -> Iterator[Bytes]:
        for start in range(0, count, BLOCK_BYTES):
            block = self._buffer(0, min(BLOCK_BYTES, count - start))
            _fill(fd, block, offset + start)
            yield block

    def _buffer(self, slot: int, count: int) -> Bytes:
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.size < count:
            buffer = self._buffers[slot] = np.empty(count, np.uint8)
        return buffer[:count]


def _merge(shape: Sequence[int], kept: Sequence[Indices | None], item_bytes: int) -> tuple[Axes, int]:
    """Joins whole axes to the axes or the items behind them, and kept positions that come in aligned runs to items."""
    axes: Axes = []
    for size, indices in zip(reversed(shape), reversed(kept), strict=True):
        if indices is not None and len(indices) < size:
            run = _aligned_run(indices, size)
            if run > 1:
                axes, item_bytes = _prepend_whole(axes, item_bytes, run)
            axes.insert(0, (size // run, indices[::run] // run))
        else:
            axes, item_bytes = _prepend_whole(axes, item_bytes, size)
    return axes, item_bytes


def _prepend_whole(axes: Axes, item_bytes: int, size: int) -> tuple[Axes, int]:
    if not axes:
        return axes, item_bytes * size
    length, indices = axes[0]
    if indices is None:
        return [(length * size, None), *axes[1:]], item_bytes
    return [(size, None), *axes], item_bytes


def _aligned_run(indices: Indices, size: int) -> int:
    """The longest run length r such that the positions are whole stretches [k*r, (k+1)*r) of an axis that r divides."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    edges = np.concatenate([indices[:1], indices[breaks], indices[breaks - 1] + 1, indices[-1:] + 1])
    return math.gcd(size, int(np.gcd.reduce(edges)))


def _row_blocks(positions: Indices, row_bytes: int) -> Iterator[Indices]:
    """Cuts kept rows into groups that span at most a block, and between which long dropped stretches lie unread."""
    rows = max(1, BLOCK_BYTES // row_bytes)
    longest_gap = max(1, SKIP_BYTES // row_bytes)
    gaps = np.flatnonzero(np.diff(positions) > longest_gap) + 1
    for stretch in np.split(positions, gaps):
        start = 0
        while start < len(stretch):
            stop = int(np.searchsorted(stretch, stretch[start] + rows))
            yield stretch[start:stop]
            start = stop


def _fill(fd: int, block: Bytes, offset: int) -> None:
    view = block.data
    while view:
        count = os.preadv(fd, [view], offset)
        if count == 0:
            raise EOFError
        view, offset = view[count:], offset + count
