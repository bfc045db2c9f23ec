"""safetensors headers, read strictly and written as the reference library does.

Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
import reprlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.strict_json import MAX_NUMBER, parse_strict_json
from prunebridge_shim.tensors import ITEM_BITS, byte_length

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The reference library's own cap."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its type, and the byte offset in the file at which its data begin."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


def open_shard(path: Path) -> int:
    """Opens a regular file for reading: a FIFO would wait for its writer, and a device may never end.

    Raises:
        ShimError: BAD_TENSOR where it is something else.
        OSError: it cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise _bad(str(path), "is no regular file")
    # What has taken its place since must not block either.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def read_exactly(fd: int, count: int, offset: int, what: str) -> bytes:
    """Reads `count` bytes; raises BAD_TENSOR where the file ends before."""
    data = os.pread(fd, count, offset)
    while len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            raise _bad(
                what, f"ends at byte {offset + len(data)}, before the {count} bytes at {offset} that it should hold"
            )
        data += more
    return data


def read_header(fd: int, what: str) -> dict[str, StoredTensor]:
    """Reads the tensors of an open safetensors file by name.

    Raises:
        ShimError: BAD_TENSOR where the header and the file contradict each other or the format.
    """
    size = os.fstat(fd).st_size
    length = int.from_bytes(read_exactly(fd, LENGTH_BYTES, 0, what), "little")
    if length > min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
        raise _bad(what, f"declares a header of {length} bytes in a file of {size}", "it may never have been finished")
    start = LENGTH_BYTES + length
    entries = _parse(read_exactly(fd, length, LENGTH_BYTES, what), what)
    _check_metadata(entries.pop("__metadata__", {}), what)
    spans = {name: _span(name, entry, what) for name, entry in entries.items()}
    end = 0
    for name, (dtype, shape, begin, stop) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise _bad(what, f"leaves a gap or an overlap before {name}: it begins at {begin} and not at {end}")
        if _bits(dtype, shape) % 8:
            raise _bad(what, f"gives {name} the shape {list(shape)} of {dtype}, which makes no whole bytes")
        if stop - begin != byte_length(dtype, shape):
            raise _bad(what, f"gives {name} {stop - begin} bytes where its shape needs {byte_length(dtype, shape)}")
        end = stop
    if start + end != size:
        raise _bad(
            what, f"has {size} bytes where its header describes {start + end}", "it may be truncated: fetch it again"
        )
    return {name: StoredTensor(dtype, shape, start + begin) for name, (dtype, shape, begin, _) in spans.items()}


def _parse(raw: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = parse_strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(what, f"has a header that cannot be read: {error}") from error
    if not isinstance(parsed, dict):
        raise _bad(what, "has a header that is no JSON object")
    return parsed


def _check_metadata(metadata: Any, what: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(what, "has __metadata__ that is no map of strings")


def _span(name: str, entry: Any, what: str) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad(what, f"describes {name} by other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise _bad(
            what, f"holds {name} as {reprlib.repr(dtype)}, which cannot be sliced", f"known are {', '.join(ITEM_BITS)}"
        )
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:  # noqa: PLR2004 a begin and an end
        found = f"the shape {reprlib.repr(shape)} and the offsets {reprlib.repr(offsets)}"
        raise _bad(what, f"gives {name} {found}; both are lists of whole numbers")
    if _bits(dtype, shape) > MAX_NUMBER:
        raise _bad(what, f"gives {name} the shape {reprlib.repr(shape)}, more than any file holds")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _bits(dtype: str, shape: Sequence[int]) -> int:
    """The bits of a tensor; too many where the product of its first sizes is, be it that a zero follows."""
    bits = ITEM_BITS[dtype]
    for size in shape:
        if bits * size > MAX_NUMBER:
            return bits * size
        bits *= size
    return bits


def build_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Builds a file's first bytes, length included, for tensors laid out in the order given.

    Args:
        tensors: The element type and shape of each tensor by name.
        metadata: The `__metadata__`; left out where it is empty.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + byte_length(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    padded = raw.ljust(math.ceil(len(raw) / 8) * 8)
    return len(padded).to_bytes(LENGTH_BYTES, "little") + padded


def _bad(what: str, message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_TENSOR, f"{what} {message}", hint)
