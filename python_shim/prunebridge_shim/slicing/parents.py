"""What a child is cut from: shards in safetensors, or a folder in Megatron's torch_dist format."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.gathering import Bytes
from prunebridge_shim.slicing.headers import LENGTH_BYTES, StoredTensor, read_exactly, read_header
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.request import OutputShard, TensorPart
from prunebridge_shim.slicing.sources import SourceFile, plain_name
from prunebridge_shim.slicing.stored import Stored
from prunebridge_shim.slicing.torch_dist import TorchDistFolder
from prunebridge_shim.slicing.torch_dist_metadata import METADATA_FILE


class Parent(Protocol):
    """What a request's `source_file` names."""

    @property
    def files(self) -> Sequence[SourceFile]:
        """The files that were opened so far."""

    @property
    def identity(self) -> Any:
        """What tells its content from another, as JSON has it, once all that is wanted was found."""

    def find(self, part: TensorPart) -> Stored:
        """The tensor that a part is cut from; raises BAD_TENSOR where there is none."""


class ShardParent:
    """One shard in safetensors."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._file = file = SourceFile(path, stack)
        self._tensors: Mapping[str, StoredTensor] = read_header(file.fd, str(path))
        length = int.from_bytes(read_exactly(file.fd, LENGTH_BYTES, 0, str(path)), "little")
        header = read_exactly(file.fd, LENGTH_BYTES + length, 0, str(path))
        self.identity = [hashlib.sha256(header).hexdigest(), file.version]

    @property
    def files(self) -> Sequence[SourceFile]:
        """The shard."""
        return (self._file,)

    def find(self, part: TensorPart) -> Stored:
        """The tensor of a part's name, which is all of it."""
        stored = self._tensors.get(part.source_name)
        if stored is None or part.index:
            at = f" at {list(part.index)}" if part.index else ""
            raise ShimError(Reason.BAD_TENSOR, f"{part.source_file} has no tensor {part.source_name}{at}")
        return Stored(stored.dtype, stored.shape, self.files, partial(_read, self._file, stored.offset))


class TorchDistParent:
    """A folder in Megatron's torch_dist format, by its .metadata."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._folder = TorchDistFolder(path.parent, stack)

    @property
    def files(self) -> Sequence[SourceFile]:
        """The .metadata, and the files that hold what was found."""
        return self._folder.files

    @property
    def identity(self) -> Any:
        """The hash of the .metadata, and the versions of the files that hold what was found."""
        return [self._folder.metadata.sha256, {file.path.name: file.version for file in self.files}]

    def find(self, part: TensorPart) -> Stored:
        """The stored tensor of a part's name, at its index."""
        return self._folder.view(part.source_name, part.index)


def open_parents(folder: Path, shards: Iterable[OutputShard], stack: ExitStack) -> dict[str, Parent]:
    """Opens all that is read from, by the names that parts have for it, until `stack` closes it.

    Raises:
        ShimError: PATH_DENIED for a name that leads out of the folder, BAD_TENSOR or BAD_CHECKPOINT for a file that is
            not what it says.
        FileNotFoundError: a file is not there.
    """
    names = dict.fromkeys(part.source_file for shard in shards for tensor in shard.tensors for part in tensor.parts)
    return {name: _open(folder / plain_name(name), stack) for name in names}


def _open(path: Path, stack: ExitStack) -> Parent:
    return TorchDistParent(path, stack) if path.name == METADATA_FILE else ShardParent(path, stack)


def _read(file: SourceFile, offset: int, reader: BlockReader, region: Region, item_bytes: int) -> Iterator[Bytes]:
    with file.whole():
        yield from reader.read(file.fd, offset + region.start * item_bytes, region, item_bytes)
