"""The archives of torch.save around the bytes of tensors, built before these are there.

Layout: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, section 4.3. All sizes are in wide fields, and
checksums behind what they are of, so that only what follows a tensor's bytes depends on them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zlib_ng import zlib_ng

from prunebridge_shim.slicing.torch_dist_pickling import write_pickle
from prunebridge_shim.slicing.torch_dist_records import tensor_pickle
from prunebridge_shim.tensors import byte_length

_LOCAL = struct.Struct("<4sHHHIIIIHH")
_LOCAL_EXTRA = struct.Struct("<HHQQ")
_DESCRIPTOR = struct.Struct("<4sIQQ")
_CENTRAL = struct.Struct("<4sHHHHIIIIHHHHHII")
_CENTRAL_EXTRA = struct.Struct("<HHQQQ")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")

_VERSION = 45
_DESCRIBED_BEHIND = 1 << 3
_DATE = 0x21 << 16
"""The first of January 1980: the same tensors make the same bytes whenever they are written."""
_WIDE = 0xFFFFFFFF
_WIDE_FIELD = 1
_SMALL = {"version": b"3\n", "byteorder": b"little"}


@dataclass(frozen=True)
class _Record:
    name: bytes
    header: int
    size: int
    crc32: int

    @property
    def local(self) -> bytes:
        fields = (_VERSION, _DESCRIBED_BEHIND, 0, _DATE, 0, _WIDE, _WIDE, len(self.name), _LOCAL_EXTRA.size)
        extra = _LOCAL_EXTRA.pack(_WIDE_FIELD, _LOCAL_EXTRA.size - 4, 0, 0)
        return _LOCAL.pack(b"PK\3\4", *fields) + self.name + extra

    @property
    def descriptor(self) -> bytes:
        return _DESCRIPTOR.pack(b"PK\7\10", self.crc32, self.size, self.size)

    @property
    def central(self) -> bytes:
        stored = (_VERSION, _VERSION, _DESCRIBED_BEHIND, 0, _DATE, self.crc32, _WIDE, _WIDE)
        extra = _CENTRAL_EXTRA.pack(_WIDE_FIELD, _CENTRAL_EXTRA.size - 4, self.size, self.size, self.header)
        return _CENTRAL.pack(b"PK\1\2", *stored, len(self.name), len(extra), 0, 0, 0, 0, _WIDE) + self.name + extra


class Frame:
    """The archive of a tensor but for the bytes of its elements.

    Attributes:
        head: What lies before these.
        size: Bytes of the whole archive.
    """

    def __init__(self, dtype: str, sizes: tuple[int, ...]) -> None:
        self.head, self._before = _begin(tensor_pickle(dtype, sizes))
        self._data = _Record(b"archive/data/0", len(self.head), byte_length(dtype, sizes), 0)
        self.head += self._data.local
        self.size = len(self.head) + self._data.size + len(self.tail(0))

    def tail(self, crc32: int) -> bytes:
        """What lies behind the elements, from the CRC-32 of their bytes."""
        data = replace(self._data, crc32=crc32)
        end = len(self.head) + data.size + _DESCRIPTOR.size
        return data.descriptor + _close([*self._before, data], end)


def archive_nothing() -> bytes:
    """The archive of an object that holds nothing."""
    head, records = _begin(write_pickle([None]))
    return head + _close(records, len(head))


def _begin(pickled: bytes) -> tuple[bytes, list[_Record]]:
    """The records of an archive before those of storages."""
    head, records = b"", []
    for name, content in {"data.pkl": pickled, **_SMALL}.items():
        record = _Record(f"archive/{name}".encode(), len(head), len(content), zlib_ng.crc32(content))
        head += record.local + content + record.descriptor
        records.append(record)
    return head, records


def _close(records: Sequence[_Record], begin: int) -> bytes:
    """What lies behind the records of an archive, which end at `begin`."""
    directory = b"".join(record.central for record in records)
    count, size = len(records), len(directory)
    return b"".join(
        [
            directory,
            _END_64.pack(b"PK\6\6", _END_64.size - 12, _VERSION, _VERSION, 0, 0, count, count, size, begin),
            _LOCATOR_64.pack(b"PK\6\7", 0, begin + size, 1),
            _END.pack(b"PK\5\6", 0, 0, count, count, size, min(begin, _WIDE), 0),
        ]
    )
