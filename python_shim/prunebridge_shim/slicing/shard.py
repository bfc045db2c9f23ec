"""One shard while it is written."""

import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.crc import combine_crc32
from prunebridge_shim.slicing.headers import LENGTH_BYTES

UNFINISHED = b"\xff" * LENGTH_BYTES
"""A header length that every reader refuses: without it, a file whose data never came would read as zeros."""


class ShardFile:
    """A new file that no reader accepts until `commit`.

    Raises:
        ShimError: INVALID_REQUEST where the file exists, be it under another name.
    """

    def __init__(self, path: Path, header: bytes) -> None:
        self._path = path
        self._header = header
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise ShimError(
                Reason.INVALID_REQUEST, f"{path} exists; shards are only written as new files", "name an empty folder"
            ) from None
        _write_fully(self._fd, UNFINISHED + header[LENGTH_BYTES:], 0)

    def write(self, block: NDArray[np.uint8], offset: int) -> None:
        """Writes a block at its offset behind the header. Threads may write side by side."""
        _write_fully(self._fd, block.data, len(self._header) + offset)

    def commit(self) -> None:
        """Makes the file valid, once all of its data are on the disk."""
        os.fsync(self._fd)
        _write_fully(self._fd, self._header[:LENGTH_BYTES], 0)
        os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Closes the file as it is; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Closes and removes the file."""
        self.close()
        self._path.unlink(missing_ok=True)

    def crc32(self, parts: list[tuple[int, int]]) -> int:
        """The finished file's CRC-32, from the CRC-32 and the length of each tensor's data in their order."""
        total = zlib.crc32(self._header)
        for crc, length in parts:
            total = combine_crc32(total, crc, length)
        return total


def _write_fully(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
