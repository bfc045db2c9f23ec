"""Reads tensors of a folder in Megatron's torch_dist format by rows, whatever ranks saved it."""

import itertools
import math
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_archive import Archive, locate_tensor
from prunebridge_shim.slicing.torch_dist_metadata import Chunk, DistTensor, Metadata
from prunebridge_shim.tensors import ITEM_BITS


class TorchDistFolder:
    """The tensors of a folder by their keys. A file is opened once, when it is first read from; threads may share it.

    Attributes:
        metadata: What there is.

    Raises:
        ShimError: BAD_CHECKPOINT where the folder's .metadata is no sound one.
        FileNotFoundError: it has none.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.metadata = Metadata(folder)
        self._folder = folder
        self._stack = stack
        self._lock = threading.Lock()
        self._tensors: dict[str, DistTensor] = {}
        self._files: dict[str, int] = {}
        self._offsets: dict[tuple[str, int], int] = {}

    def view(self, key: str, index: Sequence[int] = ()) -> "TensorView":
        """The part of a tensor at positions of its first axes.

        Raises:
            ShimError: BAD_TENSOR where the folder has no such tensor, or the tensor no such part; BAD_CHECKPOINT where
                its chunks do not fill it.
        """
        tensor = self._tensor(key)
        within = all(0 <= at < size for at, size in zip(index, tensor.shape, strict=False))
        if len(index) >= len(tensor.shape) or not within:
            raise ShimError(
                Reason.BAD_TENSOR, f"{key} has the shape {list(tensor.shape)}, and no part at {list(index)}"
            )
        return TensorView(self, key, tensor, tuple(index))

    def locate(self, key: str, tensor: DistTensor, chunk: Chunk) -> tuple[int, int]:
        """The open file that holds a chunk, and the byte in it at which its elements begin."""
        fd = self._open(chunk.file)
        place = (chunk.file, chunk.begin)
        if place not in self._offsets:
            what = f"{key} at byte {chunk.begin} of {self._folder / chunk.file}"
            archive = Archive(fd, chunk.begin, chunk.length, what)
            self._offsets[place] = locate_tensor(archive, tensor.dtype, chunk.sizes)
        return fd, self._offsets[place]

    def _tensor(self, key: str) -> DistTensor:
        with self._lock:
            if key not in self._tensors:
                self._tensors[key] = self.metadata.tensor(key)
            return self._tensors[key]

    def _open(self, name: str) -> int:
        with self._lock:
            if name not in self._files:
                self._files[name] = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
                self._stack.callback(os.close, self._files[name])
            return self._files[name]


class TensorView:
    """A tensor of the model within one of a folder.

    Attributes:
        dtype: Its element type, as safetensors spells it.
        shape: Its shape, one axis at least; its rows are the positions of the first.
        row_bytes: Bytes of one row.
    """

    def __init__(self, folder: TorchDistFolder, key: str, tensor: DistTensor, index: tuple[int, ...]) -> None:
        self.dtype = tensor.dtype
        self.shape = tensor.shape[len(index) :]
        self._item_bytes = ITEM_BITS[tensor.dtype] // 8
        self.row_bytes = math.prod(self.shape[1:]) * self._item_bytes
        self._folder = folder
        self._key = key
        self._tensor = tensor
        self._index = index

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

    def _cuts(self, first: int, count: int) -> Iterator[Sequence[int]]:
        """Where the chunks that are needed begin, along each axis."""
        wanted = [(at, at + 1) for at in self._index] + [(first, first + count)]
        wanted += [(0, size) for size in self.shape[1:]]
        for cuts, (begin, end) in zip(self._tensor.cuts, wanted, strict=True):
            yield cuts[bisect_right(cuts, begin) - 1 : bisect_left(cuts, end)] if end > begin else ()

    def _read_chunk(self, starts: tuple[int, ...], first: int, target: NDArray[np.uint8]) -> None:
        """Reads a chunk's part of the rows, which is one stretch of it: the axes behind the rows are whole in it."""
        chunk = self._tensor.chunks[starts]
        fd, offset = self._folder.locate(self._key, self._tensor, chunk)
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
