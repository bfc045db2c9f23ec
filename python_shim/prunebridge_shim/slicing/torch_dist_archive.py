"""Archives of torch.save: zip files, of which nothing is compressed, within the files of a torch_dist folder.

Layout: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, section 4.3.
"""

import itertools
import math
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import read_exactly
from prunebridge_shim.slicing.torch_dist_names import STORAGE_DTYPES, TENSOR_CLASSES, TORCH_DTYPES
from prunebridge_shim.slicing.torch_dist_pickle import Persistent, Record, read_pickle
from prunebridge_shim.tensors import byte_length, describe

_LOCAL = struct.Struct("<4s2xHH16xHH")
_CENTRAL = struct.Struct("<4s4xHH4xIIIHHH8xI")
_END = struct.Struct("<4s6xHIIH")
_END_64 = struct.Struct("<4s28xQQQ")
_LOCATOR_64 = struct.Struct("<4s4xQ4x")
_TAIL_BYTES = _END.size + _LOCATOR_64.size + _END_64.size
_WIDE = 0xFFFFFFFF
_MAX_DIRECTORY_BYTES = 16 << 20
_DESCRIBED_BEHIND = 1 << 3
_DESCRIPTOR_BYTES = {16, 24}
_LITTLE = (6, zlib.crc32(b"little"))


@dataclass(frozen=True)
class Archive:
    """A stretch of an open file that is an archive; `what` is what errors call it."""

    fd: int
    begin: int
    length: int
    what: str


@dataclass(frozen=True)
class _Stored:
    crc32: int
    bytes: int
    header: int
    end: int


def read_archive(archive: Archive) -> dict[str, bytes]:
    """Reads every record of an archive into memory, by their names within its one folder; raises BAD_CHECKPOINT."""
    return {
        name: read_exactly(archive.fd, stored.bytes, _begin(archive, name, stored), archive.what)
        for name, stored in _read_directory(archive).items()
    }


def locate_tensor(archive: Archive, dtype: str, sizes: Sequence[int]) -> int:
    """Finds the byte of the file at which the elements of an archived tensor begin, in row-major order.

    Args:
        archive: What torch.save made of the tensor.
        dtype: What its element type has to be.
        sizes: What its shape has to be, but for axes of one position.

    Raises:
        ShimError: BAD_CHECKPOINT where it holds anything else.
    """
    records = _read_directory(archive)
    if "byteorder" in records and (records["byteorder"].bytes, records["byteorder"].crc32) != _LITTLE:
        _fail(archive, "is big-endian")
    if "data.pkl" not in records:
        _fail(archive, "is no archive of torch.save: it has no data.pkl")
    pickled = records["data.pkl"]
    raw = read_exactly(archive.fd, pickled.bytes, _begin(archive, "data.pkl", pickled), archive.what)
    storage = _storage_of(read_pickle(raw, TENSOR_CLASSES, archive.what), dtype, sizes)
    data = records.get(f"data/{storage}")
    if data is None or data.bytes != byte_length(dtype, sizes):
        _fail(archive, f"is not the row-major {describe(dtype, sizes)} that .metadata says it is")
    return _begin(archive, f"data/{storage}", data)


def _storage_of(tensor: Any, dtype: str, sizes: Sequence[int]) -> str | None:
    """The storage of `_rebuild_tensor_v2(storage, offset, sizes, strides, ...)`; v3 has the dtype as its seventh."""
    if not isinstance(tensor, Record) or not tensor.name.startswith("torch._utils._rebuild_tensor"):
        return None
    match tensor.args:
        case (Persistent(("storage", storage_class, str(storage), *_)), 0, tuple(shape), tuple(strides), _, _, *rest):
            named = getattr(rest[0] if rest else storage_class, "name", "")
        case _:
            return None
    stated = TORCH_DTYPES.get(named, STORAGE_DTYPES.get(named))
    long = [size for size in sizes if size != 1]
    if stated != dtype or [size for size in shape if size != 1] != long or len(strides) != len(shape):
        return None
    expected = (math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    in_order = all(size == 1 or at == stride for size, at, stride in zip(shape, strides, expected, strict=True))
    return storage if in_order else None


def _read_directory(archive: Archive) -> dict[str, _Stored]:
    """The archive's files by their names within its one folder."""
    file_bytes = os.fstat(archive.fd).st_size
    if archive.begin + archive.length > file_bytes:
        _fail(archive, f"ends at byte {archive.begin + archive.length}, but the file has {file_bytes} bytes")
    size = min(archive.length, _TAIL_BYTES)
    tail = read_exactly(archive.fd, size, archive.begin + archive.length - size, archive.what)
    if size < _END.size:
        _fail(archive, "does not end as an archive does")
    signature, count, length, offset, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\5\6" or comment:
        _fail(archive, "does not end as an archive does")
    end = archive.length - _END.size
    if size == _TAIL_BYTES and tail[_END_64.size :].startswith(b"PK\6\7"):
        _, stated = _LOCATOR_64.unpack(tail[_END_64.size : -_END.size])
        signature, count, length, offset = _END_64.unpack(tail[: _END_64.size])
        end = archive.length - _TAIL_BYTES
        if signature != b"PK\6\6" or stated != end:
            _fail(archive, "has an end that is not where its locator says")
    if length > _MAX_DIRECTORY_BYTES or offset + length != end:
        _fail(archive, "has a directory that does not end where the archive's end begins")
    return _parse_directory(
        archive, read_exactly(archive.fd, length, archive.begin + offset, archive.what), count, offset
    )


def _parse_directory(archive: Archive, directory: bytes, count: int, end: int) -> dict[str, _Stored]:
    """Reads the directory, which begins at `end`: where the last record ends."""
    entries = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            _fail(archive, "has a broken directory")
        signature, flags, method, crc32, packed, size, name_bytes, extra_bytes, comment, header = _CENTRAL.unpack_from(
            directory, at
        )
        name_end = at + _CENTRAL.size + name_bytes
        name = directory[at + _CENTRAL.size : name_end].decode(errors="replace")
        if signature != b"PK\1\2" or flags & 1 or method:
            _fail(archive, f"holds {name!r} compressed or encrypted, which torch.save never does")
        extra = directory[name_end : name_end + extra_bytes]
        size, packed, header = _widen(archive, (size, packed, header), extra)
        if size != packed:
            _fail(archive, f"holds {name!r} with two different sizes")
        if header + size > end:
            _fail(archive, f"places {name!r} behind its directory")
        entries.append((name.partition("/")[2], crc32, size, header))
        at = name_end + extra_bytes + comment
    if at != len(directory):
        _fail(archive, "has a directory of another length than its records")
    ends = dict(itertools.pairwise([*sorted(header for *_, header in entries), end]))
    return {name: _Stored(crc32, size, header, ends[header]) for name, crc32, size, header in entries}


def _widen(archive: Archive, narrow: Sequence[int], extra: bytes) -> Sequence[int]:
    """Takes sizes and offsets that four bytes do not hold from the extra field that has them in their order."""
    if _WIDE not in narrow:
        return narrow
    at = 0
    while extra[at : at + 2] not in {b"\1\0", b""}:
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    wide = iter(struct.iter_unpack("<Q", extra[at + 4 : at + 4 + 8 * list(narrow).count(_WIDE)]))
    try:
        return [int(next(wide)[0]) if value == _WIDE else value for value in narrow]
    except (StopIteration, struct.error):
        _fail(archive, "lacks the wide field of a record")


def _begin(archive: Archive, name: str, stored: _Stored) -> int:
    """Where the bytes of a file begin, behind its own header."""
    header = read_exactly(archive.fd, _LOCAL.size, archive.begin + stored.header, archive.what)
    signature, flags, method, name_bytes, extra_bytes = _LOCAL.unpack(header)
    named = read_exactly(archive.fd, name_bytes, archive.begin + stored.header + _LOCAL.size, archive.what)
    begin = stored.header + _LOCAL.size + name_bytes + extra_bytes
    same = named.decode(errors="replace").partition("/")[2] == name
    behind = _DESCRIPTOR_BYTES if flags & _DESCRIBED_BEHIND else {0}
    if signature != b"PK\3\4" or method or not same or stored.end - begin - stored.bytes not in behind:
        _fail(archive, f"has no {name} where its directory places it")
    return int(archive.begin + begin)


def _fail(archive: Archive, message: str) -> NoReturn:
    raise ShimError(
        Reason.BAD_CHECKPOINT, f"{archive.what} {message}", "the file is truncated or corrupt: fetch it again"
    )
