"""The .metadata of a torch_dist folder: which tensors there are, and which box of which lies where."""

import hashlib
import itertools
import math
import reprlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_names import METADATA, METADATA_CLASSES, STORAGE_INFO, TORCH_DTYPES
from prunebridge_shim.slicing.torch_dist_pickle import Record, read_pickle
from prunebridge_shim.tensors import byte_length

METADATA_FILE = ".metadata"
EXTRA_STATE = "._extra_state/shard_"
TENSOR = f"{METADATA}.TensorStorageMetadata"

Offsets = tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor: its sizes, and the archive of torch.save that holds it."""

    sizes: tuple[int, ...]
    file: str
    begin: int
    length: int


@dataclass(frozen=True)
class DistTensor:
    """A tensor as all ranks together hold it.

    Attributes:
        dtype: Its element type, as safetensors spells it.
        shape: Its shape.
        cuts: For each axis where chunks begin, ascending.
        chunks: The chunk at each combination of cuts.
    """

    dtype: str
    shape: tuple[int, ...]
    cuts: tuple[tuple[int, ...], ...]
    chunks: Mapping[Offsets, Chunk]

    def chunk_at(self, position: Sequence[int]) -> Offsets:
        """Where the chunk begins that holds a position, or one of the first axes alone."""
        return tuple(cuts[bisect_right(cuts, at) - 1] for cuts, at in zip(self.cuts, position, strict=False))

    def chunks_at(self, index: Sequence[int]) -> Iterator[Offsets]:
        """Where the chunks begin that hold all of the tensor at positions of its first axes."""
        starts = self.chunk_at(index)
        return itertools.product(*((start,) for start in starts), *self.cuts[len(starts) :])


class Metadata:
    """What a folder's .metadata says; nothing that its pickle names is run.

    Attributes:
        sha256: Of the file.
        keys: Those of all that there is.
        states: The keys of what Transformer Engine modules keep beside their weights.

    Raises:
        ShimError: BAD_CHECKPOINT that names the class or what is missing.
    """

    def __init__(self, raw: bytes, path: Path) -> None:
        self._path = path
        self.sha256 = hashlib.sha256(raw).hexdigest()
        fields = _fields(read_pickle(raw, METADATA_CLASSES, str(path)), f"{METADATA}.Metadata", path)
        described, stored = fields.get("state_dict_metadata"), fields.get("storage_data")
        if not isinstance(described, dict) or not isinstance(stored, dict):
            raise _bad(path, "has no tensors or no places for them")
        if not all(isinstance(key, str) for key in described):
            raise _bad(path, "names a tensor by something other than text")
        self._described = described
        self._places = _places(stored, path)
        self.keys = frozenset(described)
        self.states = [key for key in described if EXTRA_STATE in key]

    def tensor(self, key: str) -> DistTensor:
        """Describes a tensor.

        Raises:
            ShimError: BAD_TENSOR where there is none of the key, BAD_CHECKPOINT where its chunks do not fill its shape.
        """
        if key not in self._described:
            raise ShimError(Reason.BAD_TENSOR, f"{self._path} has no tensor {key}")
        return _tensor(key, _fields(self._described[key], TENSOR, self._path), self._places, self._path)


def _places(stored: Mapping[Any, Any], path: Path) -> dict[tuple[str, Offsets], tuple[str, int, int]]:
    places = {}
    for index, info in stored.items():
        at = _fields(index, f"{METADATA}.MetadataIndex", path)
        if at.get("offset") is None:
            continue
        place = _fields(info, STORAGE_INFO, path)
        key, file = at.get("fqn"), place.get("relative_path")
        begin, length = _sizes((place.get("offset"), place.get("length")), path)
        if not isinstance(key, str) or not isinstance(file, str):
            raise _bad(path, f"places {reprlib.repr(key)} in {reprlib.repr(file)}, which are no texts")
        if Path(file).name != file or place.get("transform_descriptors"):
            raise _bad(path, f"places {key} in {file!r}, which is no file name, or compressed")
        places[key, _sizes(at["offset"], path)] = (file, begin, length)
    return places


def _tensor(key: str, fields: Mapping[str, Any], places: Mapping[Any, tuple[str, int, int]], path: Path) -> DistTensor:
    state, listed = getattr(fields.get("properties"), "state", None), fields.get("chunks")
    dtype = TORCH_DTYPES.get(getattr(state[0], "name", "")) if isinstance(state, tuple) and state else None
    if dtype is None or not isinstance(listed, list):
        raise _bad(path, f"gives {key} no dtype or chunks that can be read")
    shape = _sizes(fields.get("size"), path)
    chunks = {}
    for item in listed:
        box = _fields(item, f"{METADATA}.ChunkStorageMetadata", path)
        offsets, sizes = (_sizes(box.get(name), path) for name in ("offsets", "sizes"))
        if (key, offsets) not in places or not len(offsets) == len(sizes) == len(shape):
            raise _bad(path, f"has no place for the chunk at {list(offsets)} of {key}")
        if not 0 < byte_length(dtype, sizes) <= places[key, offsets][2]:
            raise _bad(
                path, f"gives a chunk of {key} {byte_length(dtype, sizes)} bytes, which its archive does not hold"
            )
        chunks[offsets] = Chunk(sizes, *places[key, offsets])
    cuts = tuple(tuple(sorted({offsets[axis] for offsets in chunks})) for axis in range(len(shape)))
    if len(chunks) != len(listed) or not _tile(shape, cuts, chunks):
        raise _bad(path, f"has chunks of {key} that do not fill its shape {list(shape)} once")
    return DistTensor(dtype, shape, cuts, chunks)


def _tile(shape: Offsets, cuts: tuple[tuple[int, ...], ...], chunks: Mapping[Offsets, Chunk]) -> bool:
    """Whether chunks are a grid: cut along each axis at the same positions everywhere, as Megatron's ranks cut."""
    if len(chunks) != math.prod(map(len, cuts)) or any(starts[0] != 0 for starts in cuts):
        return False
    ends = [dict(itertools.pairwise((*starts, size))) for starts, size in zip(cuts, shape, strict=True)]
    return all(
        start + size == ends[axis][start]
        for offsets, chunk in chunks.items()
        for axis, (start, size) in enumerate(zip(offsets, chunk.sizes, strict=True))
    )


def _fields(value: Any, name: str, path: Path) -> Mapping[str, Any]:
    if isinstance(value, Record) and value.name == name and isinstance(value.state, dict):
        return value.state
    raise _bad(path, f"lacks a {name} where one belongs")


def _sizes(value: Any, path: Path) -> tuple[int, ...]:
    if isinstance(value, tuple) and all(type(item) is int and item >= 0 for item in value):
        return value
    raise _bad(path, f"has {reprlib.repr(value)} where whole numbers belong")


def _bad(path: Path, message: str) -> ShimError:
    return ShimError(
        Reason.BAD_CHECKPOINT, f"{path} {message}", "save the checkpoint again with Megatron's torch_dist format"
    )
