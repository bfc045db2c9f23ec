"""Writes folders in Megatron's torch_dist format, tensor after tensor, in blocks as they come."""

import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.slicing.torch_dist_metadata import METADATA_FILE
from prunebridge_shim.slicing.torch_dist_names import METADATA, STORAGE_DTYPES, STORAGE_INFO, TORCH_DTYPES
from prunebridge_shim.slicing.torch_dist_pickle import Made, Name, Persistent, write_pickle
from prunebridge_shim.tensors import byte_length

BACKEND = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
COMMON_BACKEND = {"common_backend": "torch", "common_backend_version": 1}
TRACKER = "latest_checkpointed_iteration.txt"
_ARCHIVE_VERSION = b"3\n"
_STORAGES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}
_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class Box:
    """Part of a tensor: where it begins along each axis, and its sizes."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass
class _Described:
    dtype: str
    shape: tuple[int, ...]
    chunks: list[Box] = field(default_factory=list)


class TorchDistWriter:
    """A new save, which no reader takes for whole until `finish`. All tensors go into one file of the folder.

    Raises:
        FileExistsError: the folder holds a save already.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = "__0_0.distcp"
        self._file = (folder / self._name).open("xb")
        self._tensors: dict[str, _Described] = {}
        self._states: list[str] = []
        self._places: dict[Made, Made] = {}

    def __enter__(self) -> "TorchDistWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, dtype: str, shape: tuple[int, ...], box: Box, blocks: Iterable[NDArray[np.uint8]]) -> None:
        """Writes a box of a tensor.

        Args:
            key: The tensor's key. Its boxes may come one after the other; together they fill its shape.
            dtype: Its element type, as safetensors spells it.
            shape: Its shape.
            box: Which part of it comes.
            blocks: The bytes of its elements, row-major, in stretches of any length.
        """
        begin = self._file.tell()
        with _open_archive(self._file, _tensor_pickle(dtype, box.sizes)) as archive:
            entry = zipfile.ZipInfo("archive/data/0")
            with archive.open(entry, "w", force_zip64=byte_length(dtype, box.sizes) >= zipfile.ZIP64_LIMIT) as data:
                for block in blocks:
                    data.write(block.data)
        self._tensors.setdefault(key, _Described(dtype, shape)).chunks.append(box)
        self._place(key, box.offsets, begin)

    def add_empty_state(self, key: str) -> None:
        """Writes an object that holds nothing: what Megatron asks of every Transformer Engine module."""
        begin = self._file.tell()
        _open_archive(self._file, write_pickle([None])).close()
        self._states.append(key)
        self._place(key, None, begin)

    def finish(self, common: Mapping[str, Any]) -> None:
        """Writes what makes the folder whole, and returns when all of it is on the disk.

        Args:
            common: What is not cut over ranks: plain values, and `Made` objects such as the arguments of a training
                script.
        """
        _sync(self._file)
        with (self._folder / "common.pt").open("xb") as file:
            _open_archive(file, write_pickle(dict(common))).close()
            _sync(file)
        for name, content in (
            (METADATA_FILE, write_pickle(self._metadata())),
            ("metadata.json", json.dumps(BACKEND | COMMON_BACKEND).encode()),
        ):
            with (self._folder / name).open("xb") as file:
                file.write(content)
                _sync(file)

    def _place(self, key: str, offsets: tuple[int, ...] | None, begin: int) -> None:
        index = _named(f"{METADATA}.MetadataIndex").holding(fqn=key, offset=_size(offsets), index=None)
        place = {"relative_path": self._name, "offset": begin, "length": self._file.tell() - begin}
        self._places[index] = _named(STORAGE_INFO).holding(**place)

    def _metadata(self) -> Made:
        nothing = _named(f"{METADATA}.BytesStorageMetadata").holding()
        tensors = {key: _tensor_metadata(tensor) for key, tensor in self._tensors.items()}
        return _named(f"{METADATA}.Metadata").holding(
            state_dict_metadata=tensors | dict.fromkeys(self._states, nothing),
            planner_data=None,
            storage_data=self._places,
            storage_meta=None,
            version="1.0.0",
        )


class _Appended:
    """The end of a file as a stream of its own: an archive counts from its own beginning."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Ends the stream and not the file."""


def _open_archive(file: BinaryIO, pickled: bytes) -> zipfile.ZipFile:
    """Begins what torch.save writes, at the end of a file, for the storages to follow."""
    archive = zipfile.ZipFile(_Appended(file), "w")
    archive.writestr("archive/data.pkl", pickled)
    archive.writestr("archive/version", _ARCHIVE_VERSION)
    archive.writestr("archive/byteorder", b"little")
    return archive


def write_tracker(root: Path, iteration: int) -> None:
    """Says which iteration's folder is the whole one: the last thing that is written."""
    with (root / TRACKER).open("x") as file:
        file.write(str(iteration))
        _sync(file)


def _tensor_pickle(dtype: str, sizes: tuple[int, ...]) -> bytes:
    """The call that makes a row-major tensor of the storage `0`, as torch.save writes it."""
    strides = tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))
    hooks = _named("collections.OrderedDict")()
    count = math.prod(sizes)
    if dtype in _STORAGES:
        storage = Persistent(("storage", _named(_STORAGES[dtype]), "0", "cpu", count))
        return write_pickle(_named("torch._utils._rebuild_tensor_v2")(storage, 0, sizes, strides, False, hooks))
    storage = Persistent(("storage", _named("torch.storage.UntypedStorage"), "0", "cpu", byte_length(dtype, sizes)))
    rebuild = _named("torch._utils._rebuild_tensor_v3")
    return write_pickle(rebuild(storage, 0, sizes, strides, False, hooks, _named(_DTYPES[dtype])))


def _tensor_metadata(tensor: _Described) -> Made:
    layout = _named("torch.serialization._get_layout")("torch.strided")
    contiguous = _named(f"{METADATA}._MEM_FORMAT_ENCODING")(0)
    properties = Made(
        _named(f"{METADATA}.TensorProperties"), None, (_named(_DTYPES[tensor.dtype]), layout, False, contiguous, False)
    )
    chunk = _named(f"{METADATA}.ChunkStorageMetadata")
    return _named(f"{METADATA}.TensorStorageMetadata").holding(
        properties=properties,
        size=_size(tensor.shape),
        chunks=[chunk.holding(offsets=_size(box.offsets), sizes=_size(box.sizes)) for box in tensor.chunks],
    )


def _size(sizes: tuple[int, ...] | None) -> Made | None:
    return None if sizes is None else _named("torch.Size")(sizes)


def _named(full: str) -> Name:
    module, _, name = full.rpartition(".")
    return Name(module, name)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
