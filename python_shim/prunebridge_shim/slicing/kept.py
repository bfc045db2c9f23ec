"""Which positions of a tensor stay, looked up and checked."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.request import IndexSets, Indices, TensorPart

KeptAxes = tuple[Indices | None, ...]
"""For each axis the positions kept, None for all."""


@dataclass(frozen=True)
class Region:
    """A stretch of a tensor that is cut on its own.

    Attributes:
        start: Elements of the tensor before it.
        shape: Its shape.
        axes: The positions kept within it.
    """

    start: int
    shape: tuple[int, ...]
    axes: KeptAxes

    @property
    def size(self) -> int:
        """Elements that are kept."""
        return math.prod(_shape_after(self.shape, self.axes))

    def split(self, limit: int) -> Iterator["Region"]:
        """Yields the region in parts of at most `limit` kept elements, along rows of its outermost axes."""
        if self.size <= limit:
            yield self
            return
        count, row_size = _shape_after(self.shape, self.axes)[0], self.size // _shape_after(self.shape, self.axes)[0]
        if row_size <= limit:
            step = limit // row_size
            yield from (self._rows(start, min(start + step, count)) for start in range(0, count, step))
            return
        positions = range(count) if self.axes[0] is None else self.axes[0].tolist()
        row = math.prod(self.shape[1:])
        for position in positions:
            yield from Region(self.start + position * row, self.shape[1:], self.axes[1:]).split(limit)

    def _rows(self, start: int, stop: int) -> "Region":
        """The part that makes some of the kept rows."""
        kept = self.axes[0]
        first, last = (start, stop - 1) if kept is None else (int(kept[start]), int(kept[stop - 1]))
        outer = None if kept is None else kept[start:stop] - first
        begin = self.start + first * math.prod(self.shape[1:])
        return Region(begin, (last - first + 1, *self.shape[1:]), (outer, *self.axes[1:]))


@dataclass(frozen=True)
class Kept:
    """What is kept of a tensor, checked against its shape.

    Attributes:
        source_shape: The tensor's shape.
        axes: The positions kept of each axis, of the first only where there are blocks.
        blocks: For each kept position of the first axis, in order, those kept of the axes behind it. Empty where they
            are the same in all.
    """

    source_shape: tuple[int, ...]
    axes: KeptAxes
    blocks: tuple[KeptAxes, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape after the cut."""
        if self.blocks:
            return (len(self.blocks), *_shape_after(self.source_shape[1:], self.blocks[0]))
        return _shape_after(self.source_shape, self.axes)

    @property
    def whole(self) -> bool:
        """Whether nothing is cut."""
        return not self.blocks and all(indices is None for indices in self.axes)

    @property
    def block_positions(self) -> Indices:
        """The kept positions of the first axis."""
        return np.arange(self.source_shape[0]) if self.axes[0] is None else self.axes[0]

    def regions(self) -> Iterator[Region]:
        """Yields what is to be cut, in the order in which it lies in the child."""
        if not self.blocks:
            yield Region(0, self.source_shape, self.axes)
            return
        inner = self.source_shape[1:]
        for position, axes in zip(self.block_positions.tolist(), self.blocks, strict=True):
            yield Region(position * math.prod(inner), inner, axes)


def find_kept(name: str, part: TensorPart, sets: IndexSets) -> Kept:
    """Looks up the index sets of a part of the tensor `name`.

    Raises:
        ShimError: INVALID_REQUEST where a set was not sent or the axes and blocks are not as many as the tensor's,
            BAD_TENSOR where a set does not fit its axis, or blocks come out in different shapes.
    """
    if not part.blocks:
        return Kept(part.shape, _kept_axes(part, name, part.axes, 0, sets))
    if not part.shape or len(part.axes) != 1:
        raise _invalid(
            f"{name} has {len(part.axes)} axis entries beside its blocks, for a source of {len(part.shape)} axes",
            "where there are blocks, `axes` has the first axis alone",
        )
    first = _kept(part, name, 0, part.axes[0], sets)
    count = part.shape[0] if first is None else len(first)
    if len(part.blocks) != count:
        raise _invalid(f"{name} has {len(part.blocks)} blocks for the {count} positions kept of its first axis")
    blocks = tuple(
        _kept_axes(part, f"block {index} of {name}", axes, 1, sets) for index, axes in enumerate(part.blocks)
    )
    _check_equal(name, [_shape_after(part.shape[1:], axes) for axes in blocks])
    return Kept(part.shape, (first,), blocks)


def _kept_axes(part: TensorPart, where: str, set_ids: Sequence[str], begin: int, sets: IndexSets) -> KeptAxes:
    sizes = part.shape[begin:]
    if len(set_ids) != len(sizes):
        behind = " behind the first" if begin else ""
        raise _invalid(f"{where} has {len(set_ids)} axis entries for the {len(sizes)} axes of its source{behind}")
    return tuple(_kept(part, where, axis, set_id, sets) for axis, set_id in enumerate(set_ids, begin))


def _kept(part: TensorPart, where: str, axis: int, set_id: str, sets: IndexSets) -> Indices | None:
    if not set_id:
        return None
    if set_id not in sets:
        raise _invalid(f"axis {axis} of {where} names index set {set_id!r}, which was not sent")
    kept, size = sets[set_id], part.shape[axis]
    if kept.size and kept[-1] >= size:
        raise ShimError(
            Reason.BAD_TENSOR,
            f"index set {set_id!r} keeps position {kept[-1]} of axis {axis} of {part.source_name}, which has {size}",
        )
    return kept if len(kept) < size else None


def _check_equal(name: str, shapes: Sequence[tuple[int, ...]]) -> None:
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ShimError(
                Reason.BAD_TENSOR,
                f"block {index} of {name} is cut to {list(shape)} where block 0 is cut to {list(shapes[0])}",
                "every block keeps as many positions as the others",
            )


def _shape_after(shape: Sequence[int], axes: KeptAxes) -> tuple[int, ...]:
    return tuple(size if indices is None else len(indices) for size, indices in zip(shape, axes, strict=True))


def _invalid(message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.INVALID_REQUEST, message, hint)
