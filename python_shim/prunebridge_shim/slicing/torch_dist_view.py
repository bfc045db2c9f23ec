"""Reads a tensor of a torch_dist folder by rows, from the chunks that hold them."""

import itertools
import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_metadata import Chunk, DistTensor
from prunebridge_shim.tensors import ITEM_BITS

Locate = Callable[[Chunk], tuple[int, int]]
"""Gives the open file that holds a chunk, and the byte in it at which its elements begin."""


class TensorView:
    """A tensor of the model within one of a folder.

    Attributes:
        dtype: Its element type, as safetensors spells it.
        shape: Its shape, one axis at least; its rows are the positions of the first.
        row_bytes: Bytes of one row.
    """

    def __init__(self, key: str, tensor: DistTensor, index: tuple[int, ...], locate: Locate) -> None:
        self.dtype = tensor.dtype
        self.shape = tensor.shape[len(index) :]
        self._item_bytes = ITEM_BITS[tensor.dtype] // 8
        self.row_bytes = math.prod(self.shape[1:]) * self._item_bytes
        self._key = key
        self._tensor = tensor
        self._index = index
        self._locate = locate

    def read_rows(self, first: int, count: int, out: NDArray[np.uint8]) -> None:
        """Reads rows into memory: `out` is C-contiguous and as long as they are.

        Raises:
            ShimError: BAD_TENSOR where there are no such rows or a file ends too soon, BAD_CHECKPOINT where a file is
                not what .metadata says.
        """
        rows = self.shape[0]
        if not 0 <= first <= first + count <= rows or out.nbytes != count * self.row_bytes:
            raise ShimError(
                Reason.BAD_TENSOR,
                f"{self._key} has {rows} rows of {self.row_bytes} bytes; asked was for {count} at {first}"
                f" in {out.nbytes} bytes",
            )
        target = out.reshape(count, *self.shape[1:], self._item_bytes)
        for starts in itertools.product(*self._cuts(first, count)):
            self._read_chunk(starts, first, target)

    def read_span(self, begin: int, out: NDArray[np.uint8]) -> None:
        """Reads a stretch of bytes from `begin` on, as if rows lay one behind the other. Raises as `read_rows`."""
        end = begin + out.nbytes
        first, last = -(-begin // self.row_bytes), end // self.row_bytes
        if first > last:
            self._read_within(first - 1, begin, out)
            return
        head, tail = first * self.row_bytes - begin, end - last * self.row_bytes
        self.read_rows(first, last - first, out[head : out.nbytes - tail])
        if head:
            self._read_within(first - 1, begin, out[:head])
        if tail:
            self._read_within(last, last * self.row_bytes, out[out.nbytes - tail :])

    def _read_within(self, row: int, begin: int, out: NDArray[np.uint8]) -> None:
        """Reads a stretch of one row."""
        whole = np.empty(self.row_bytes, np.uint8)
        self.read_rows(row, 1, whole)
        out[...] = whole[begin - row * self.row_bytes :][: out.nbytes]

    def _cuts(self, first: int, count: int) -> Iterator[Sequence[int]]:
        """Where the chunks that are needed begin, along each axis."""
        wanted = [(at, at + 1) for at in self._index] + [(first, first + count)]
        wanted += [(0, size) for size in self.shape[1:]]
        for cuts, (begin, end) in zip(self._tensor.cuts, wanted, strict=True):
            yield cuts[bisect_right(cuts, begin) - 1 : bisect_left(cuts, end)] if end > begin else ()

    def _read_chunk(self, starts: tuple[int, ...], first: int, target: NDArray[np.uint8]) -> None:
        """Reads a chunk's part of the rows, which is one stretch of it: the axes behind the rows are whole in it."""
        chunk = self._tensor.chunks[starts]
        fd, offset = self._locate(chunk)
        axis = len(self._index)
        begin = max(first, starts[axis])
        end = min(first + target.shape[0], starts[axis] + chunk.sizes[axis])
        inner = chunk.sizes[axis + 1 :]
        position = 0
        for at, start, size in zip((*self._index, begin), starts, chunk.sizes, strict=False):
            position = position * size + at - start
        offset += position * math.prod(inner) * self._item_bytes
        columns = (slice(start, start + size) for start, size in zip(starts[axis + 1 :], inner, strict=True))
        part = target[(slice(begin - first, end - first), *columns)]
        if part.flags.c_contiguous:
            _read_into(fd, part, offset, self._key)
            return
        stretch = np.empty(part.shape, np.uint8)
        _read_into(fd, stretch, offset, self._key)
        part[...] = stretch


def _read_into(fd: int, block: NDArray[np.uint8], offset: int, what: str) -> None:
    view = block.reshape(-1).data
    while view:
        count = os.preadv(fd, [view], offset)
        if count == 0:
            raise ShimError(
                Reason.BAD_TENSOR,
                f"the file of {what} ended at byte {offset}, {len(view)} bytes too soon",
                "it was replaced or truncated while it was read: start again once nothing writes to it",
            )
        view, offset = view[count:], offset + count
