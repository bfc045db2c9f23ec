"""Reads what is kept of a tensor of a torch_dist folder, from the chunks that hold it."""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunebridge_shim.slicing import blocks
from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.gathering import Bytes
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.request import Indices
from prunebridge_shim.slicing.sources import SourceFile
from prunebridge_shim.slicing.torch_dist_metadata import DistTensor, Offsets


@dataclass(frozen=True)
class Place:
    """The file that holds a chunk, and the byte in it at which its elements begin."""

    file: SourceFile
    offset: int


@dataclass(frozen=True)
class Span:
    """A stretch of an axis that lies in one chunk: where it begins, its size, and what is kept of it, None for all."""

    start: int
    size: int
    kept: Indices | None

    @property
    def count(self) -> int:
        """How many positions are kept."""
        return self.size if self.kept is None else len(self.kept)

    @property
    def positions(self) -> Sequence[int]:
        """The positions of the axis that are kept."""
        within = range(self.size) if self.kept is None else self.kept.tolist()
        return [self.start + position for position in within]

    def split(self, limit: int) -> Iterator["Span"]:
        """Yields the span in parts of at most `limit` positions."""
        for start in range(0, self.size, limit):
            size = min(limit, self.size - start)
            span = Span(self.start + start, size, _within(self.kept, start, size))
            if span.count:
                yield span


class TensorView:
    """A tensor of the model within one of a folder: all of that at positions of its first axes.

    Args:
        tensor: The folder's tensor.
        index: The positions.
        places: Where the chunks lie that hold it, by where they begin.
    """

    def __init__(self, tensor: DistTensor, index: tuple[int, ...], places: Mapping[Offsets, Place]) -> None:
        self._tensor = tensor
        self._index = index
        self._places = places

    def read(self, reader: BlockReader, region: Region, item_bytes: int) -> Iterator[Bytes]:
        """Yields what is kept of a region in row-major order; each block is valid until the next.

        Chunks that end between rows are read one after the other. Of those that end within rows, the parts of as many
        rows as a block holds are put side by side; a row that no block holds is read as a region of its own.
        """
        if not region.size:
            return
        fixed, begins = self._locate(region)
        spans = [
            self._spans(len(fixed) + axis, first, size, kept)
            for axis, (first, size, kept) in enumerate(zip(begins, region.shape, region.axes, strict=True))
        ]
        yield from self._walk(reader, fixed, spans, item_bytes)

    def _locate(self, region: Region) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The positions of the first axes that a region lies at, and where it begins along its own."""
        shape = self._tensor.shape[len(self._index) :]
        depth = len(shape) - len(region.shape)
        at = [int(position) for position in np.unravel_index(region.start, shape)] if shape else []
        return (*self._index, *at[:depth]), tuple(at[depth:])

    def _spans(self, axis: int, first: int, size: int, kept: Indices | None) -> list[Span]:
        """The stretches of an axis that lie in one chunk each, without those of which nothing is kept."""
        cuts = self._tensor.cuts[axis]
        edges = [first, *cuts[bisect_right(cuts, first) : bisect_left(cuts, first + size)], first + size]
        spans = [
            Span(start, end - start, _within(kept, start - first, end - start))
            for start, end in itertools.pairwise(edges)
        ]
        return [span for span in spans if span.count]

    def _walk(
        self, reader: BlockReader, fixed: tuple[int, ...], spans: Sequence[Sequence[Span]], item_bytes: int
    ) -> Iterator[Bytes]:
        inner = spans[1:]
        if all(len(of_axis) == 1 for of_axis in inner):
            for box in itertools.product(*spans):
                yield from self._read_box(reader, fixed, box, item_bytes)
            return
        row_bytes = math.prod(sum(span.count for span in of_axis) for of_axis in inner) * item_bytes
        if row_bytes > blocks.BLOCK_BYTES:
            for position in itertools.chain.from_iterable(span.positions for span in spans[0]):
                yield from self._walk(reader, (*fixed, position), inner, item_bytes)
            return
        for rows in itertools.chain.from_iterable(span.split(blocks.BLOCK_BYTES // row_bytes) for span in spans[0]):
            yield self._read_rows(reader, fixed, rows, inner, item_bytes)

    def _read_rows(
        self, reader: BlockReader, fixed: tuple[int, ...], rows: Span, inner: Sequence[Sequence[Span]], item_bytes: int
    ) -> Bytes:
        """Reads some rows whose parts lie in several chunks."""
        counts = [sum(span.count for span in spans) for spans in inner]
        out = np.empty((rows.count, *counts, item_bytes), np.uint8)
        for beside in itertools.product(*map(_placed, inner)):
            target = out[(slice(None), *(place for _, place in beside))]
            box = [rows, *(span for span, _ in beside)]
            part = np.concatenate([block.copy() for block in self._read_box(reader, fixed, box, item_bytes)])
            target[...] = part.reshape(target.shape)
        return out.reshape(-1)

    def _read_box(
        self, reader: BlockReader, fixed: tuple[int, ...], box: Sequence[Span], item_bytes: int
    ) -> Iterator[Bytes]:
        """Reads rows of one chunk, which are whole in it but for what is not kept."""
        at = (*fixed, *(span.start for span in box))
        starts = self._tensor.chunk_at(at)
        sizes = self._tensor.chunks[starts].sizes
        begin = int(np.ravel_multi_index([a - b for a, b in zip(at, starts, strict=True)], sizes)) if at else 0
        place = self._places[starts]
        region = Region(begin, tuple(span.size for span in box), tuple(span.kept for span in box))
        with place.file.whole():
            yield from reader.read(place.file.fd, place.offset + begin * item_bytes, region, item_bytes)


def _within(kept: Indices | None, start: int, size: int) -> Indices | None:
    """What is kept of a stretch of an axis, counted from where it begins."""
    if kept is None:
        return None
    first, end = np.searchsorted(kept, (start, start + size))
    return None if end - first == size else kept[first:end] - start


def _placed(spans: Sequence[Span]) -> list[tuple[Span, slice]]:
    """Spans, each with its place among what is kept of the axis."""
    ends = list(itertools.accumulate(span.count for span in spans))
    return [(span, slice(end - span.count, end)) for span, end in zip(spans, ends, strict=True)]
