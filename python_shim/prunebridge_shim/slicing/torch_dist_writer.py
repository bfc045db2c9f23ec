"""Writes folders in Megatron's torch_dist format, tensor after tensor, in blocks as they come."""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.slicing.torch_dist_metadata import METADATA_FILE
from prunebridge_shim.slicing.torch_dist_names import METADATA, STORAGE_INFO
from prunebridge_shim.slicing.torch_dist_pickling import Made, named, write_pickle
from prunebridge_shim.slicing.torch_dist_records import Box, DescribedTensor, size_of, tensor_metadata, tensor_pickle
from prunebridge_shim.tensors import byte_length

BACKEND = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
COMMON_BACKEND = {"common_backend": "torch", "common_backend_version": 1}
TRACKER = "latest_checkpointed_iteration.txt"
_ARCHIVE_VERSION = b"3\n"


class TorchDistWriter:
    """A new save, which no reader takes for whole until `finish`. All tensors go into one file of the folder.

    Raises:
        FileExistsError: the folder holds a save already.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = "__0_0.distcp"
        self._file = (folder / self._name).open("xb")
        self._tensors: dict[str, DescribedTensor] = {}
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
        size = byte_length(dtype, box.sizes)
        with _open_archive(self._file, tensor_pickle(dtype, box.sizes)) as archive:
            with archive.open("archive/data/0", "w", force_zip64=size >= zipfile.ZIP64_LIMIT) as data:
                written = sum(data.write(block.data) for block in blocks)
            assert written == size, f"{written} of the {size} bytes of {key} came"
        self._tensors.setdefault(key, DescribedTensor(dtype, shape)).chunks.append(box)
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
        index = named(f"{METADATA}.MetadataIndex").holding(fqn=key, offset=size_of(offsets), index=None)
        place = {"relative_path": self._name, "offset": begin, "length": self._file.tell() - begin}
        self._places[index] = named(STORAGE_INFO).holding(**place)

    def _metadata(self) -> Made:
        nothing = named(f"{METADATA}.BytesStorageMetadata").holding()
        tensors = {key: tensor_metadata(tensor) for key, tensor in self._tensors.items()}
        return named(f"{METADATA}.Metadata").holding(
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


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
