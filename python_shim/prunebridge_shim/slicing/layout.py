"""From a request and the parent's headers to what is read from where and written to where."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import StoredTensor, build_header, open_shard, read_header
from prunebridge_shim.slicing.kept import Kept, find_kept
from prunebridge_shim.slicing.packed import in_units, unit_of
from prunebridge_shim.slicing.request import IndexSets, OutputShard, TensorSlice
from prunebridge_shim.tensors import byte_length, describe


@dataclass(frozen=True)
class Source:
    """An open shard of the parent."""

    fd: int
    tensors: Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Cut:
    """One tensor's way: where it is read, which positions are kept, and its place in the shard behind the header."""

    fd: int
    stored: StoredTensor
    kept: Kept
    item_bytes: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class ShardLayout:
    """One file to write."""

    file: str
    header: bytes
    cuts: tuple[Cut, ...]

    @property
    def bytes(self) -> int:
        """The file's size."""
        return len(self.header) + sum(cut.bytes for cut in self.cuts)


def open_sources(folder: Path, shards: Iterable[OutputShard], stack: ExitStack) -> dict[str, Source]:
    """Opens every shard of the parent that is read from, until `stack` closes them.

    Raises:
        ShimError: PATH_DENIED for a name that leads out of the folder, BAD_TENSOR for a file that is not what it says.
        FileNotFoundError: a shard is not there.
    """
    sources = {}
    for name in dict.fromkeys(tensor.source_file for shard in shards for tensor in shard.tensors):
        fd = open_shard(folder / plain_name(name))
        stack.callback(os.close, fd)
        sources[name] = Source(fd, read_header(fd, str(folder / name)))
    return sources


def lay_out(shard: OutputShard, sources: Mapping[str, Source], sets: IndexSets) -> ShardLayout:
    """Checks a shard's tensors against the parent and the index sets, and places them.

    Raises:
        ShimError: BAD_TENSOR or INVALID_REQUEST where they do not agree.
    """
    if not shard.tensors:
        raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has no tensors")
    described: dict[str, tuple[str, tuple[int, ...]]] = {}
    cuts = []
    offset = 0
    for tensor in shard.tensors:
        if tensor.name in described:
            raise ShimError(Reason.INVALID_REQUEST, f"shard {shard.file} has two tensors of the name {tensor.name}")
        source = sources[tensor.source_file]
        stored = _find(tensor, source)
        kept = find_kept(tensor, sets)
        described[tensor.name] = (stored.dtype, kept.shape)
        size = byte_length(stored.dtype, kept.shape)
        _, unit_bytes = unit_of(stored.dtype)
        units = in_units(kept, stored.dtype, tensor.source_name)
        cuts.append(Cut(source.fd, stored, units, unit_bytes, offset, size))
        offset += size
    return ShardLayout(plain_name(shard.file), build_header(described, shard.metadata), tuple(cuts))


def _find(tensor: TensorSlice, source: Source) -> StoredTensor:
    stored = source.tensors.get(tensor.source_name)
    if stored is None:
        raise ShimError(Reason.BAD_TENSOR, f"{tensor.source_file} has no tensor {tensor.source_name}")
    if (stored.dtype, stored.shape) != (tensor.dtype, tensor.shape):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{tensor.source_name} in {tensor.source_file} is {describe(stored.dtype, stored.shape)}"
            f" where the request says {describe(tensor.dtype, tensor.shape)}",
            "the parent has changed since it was inspected: inspect it again",
        )
    return stored


def plain_name(name: str) -> str:
    """Gives back a file name; raises PATH_DENIED where it is more than the name of a file within a folder."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ShimError(Reason.PATH_DENIED, f"{name!r} is no plain file name; shards lie directly in their folder")
    return name
