"""Opens folders in Megatron's torch_dist format, whatever ranks saved them."""

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_archive import Archive, locate_tensor
from prunebridge_shim.slicing.torch_dist_metadata import Chunk, DistTensor, Metadata
from prunebridge_shim.slicing.torch_dist_view import TensorView


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

    def view(self, key: str, index: Sequence[int] = ()) -> TensorView:
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
        return TensorView(key, tensor, tuple(index), partial(self._locate, key, tensor))

    def _locate(self, key: str, tensor: DistTensor, chunk: Chunk) -> tuple[int, int]:
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
