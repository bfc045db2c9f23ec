"""One shard while it is written, maybe by several processes at once.

A file lacks its first bytes until all else is on the disk: no reader takes it for a whole one. What is written
to a place is the same whoever writes it, and nothing is ever cut off or made invalid again: a process that wakes up
late does no harm.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import LENGTH_BYTES
from prunebridge_shim.slicing.opened import OpenFolder, naming

READ_BYTES = 4 << 20
"""Read at a time where a file is read back."""


class ShardFile:
    """A shard's file, made where it is missing. It is opened by what is first done with it, and closed by `close`.

    Args:
        folder: The open folder that it is made in.
        name: Its name in there.
        header: Its first bytes.
        size: Bytes of the whole file.
        sources: Devices and inodes of the files that are read, none of which it may be.
    """

    def __init__(
        self, folder: OpenFolder, name: str, header: bytes, size: int, sources: Collection[tuple[int, int]]
    ) -> None:
        self.path = folder.path / name
        self._folder = folder
        self._name = name
        self.header = header
        self.size = size
        self._sources = sources
        self._fds: list[int] = []

    @property
    def fd(self) -> int:
        """The open file; raises PATH_DENIED where the path names a file of the parent."""
        if not self._fds:
            self.reopen()
        return self._fds[-1]

    def reopen(self) -> None:
        """Opens the file anew, where its server forgot the open one. That stays open: it may have to be flushed."""
        fd = self._folder.open(self._name, os.O_RDWR | os.O_CREAT)
        self._fds.append(fd)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) in self._sources:
            raise ShimError(
                Reason.PATH_DENIED,
                f"{self.path} is a file of the parent under another name",
                "remove that link: the parent is never changed",
            )

    def write(self, fd: int, block: NDArray[np.uint8], offset: int) -> None:
        """Writes a block at its offset behind the header, by a descriptor of the file. Any thread may."""
        with naming(self.path):
            _write_fully(fd, block.data, len(self.header) + offset)

    def flush(self, fd: int) -> None:
        """Puts on the disk what was written by a descriptor. It must not be tried again where it fails."""
        with naming(self.path):
            os.fdatasync(fd)

    def commit(self, flush: bool, around: Sequence[tuple[int, bytes]] = ()) -> None:
        """Makes the file valid, once all of its data are written; a second time changes nothing.

        Args:
            flush: Whether it is on the disk when it is valid.
            around: What else lies behind the header, by offsets as `write` takes them.

        Raises:
            ShimError: STORAGE_FAILED where the file is not as long as it must be.
        """
        with naming(self.path):
            for offset, data in around:
                _write_fully(self.fd, data, len(self.header) + offset)
            _write_fully(self.fd, self.header[LENGTH_BYTES:], LENGTH_BYTES)
            size = os.fstat(self.fd).st_size
            if size != self.size:
                raise ShimError(
                    Reason.STORAGE_FAILED,
                    f"{self.path} has {size} bytes where {self.size} were written",
                    "something else wrote to it: remove its folder, and start again",
                )
            if flush:
                os.fsync(self.fd)
            _write_fully(self.fd, self.header[:LENGTH_BYTES], 0)
            if flush:
                os.fsync(self.fd)

    def read(self, offset: int, count: int) -> Iterator[memoryview]:
        """Yields stored bytes in blocks, each valid until the next; fewer where the file ends before."""
        buffer = memoryview(bytearray(min(count, READ_BYTES)))
        end = offset + count
        with naming(self.path):
            while offset < end and (got := os.preadv(self.fd, [buffer[: end - offset]], offset)):
                yield buffer[:got]
                offset += got

    def close(self) -> None:
        """Closes the file as it is, all of it though storage refuses some; raises OSError then."""
        with naming(self.path), ExitStack() as stack:
            while self._fds:
                stack.callback(os.close, self._fds.pop())


def join_crc32(header: bytes, parts: list[tuple[int, int]]) -> int:
    """A file's CRC-32, from its header and from the CRC-32 and the length of each stretch of data behind it."""
    total = zlib_ng.crc32(header)
    for crc, length in parts:
        total = zlib_ng.crc32_combine(total, crc, length)
    return total


def _write_fully(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
