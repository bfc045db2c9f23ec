"""One worker's hands: cuts pieces, or sees that they are there already, and finishes shards."""

import hashlib
from collections.abc import Callable
from functools import partial
from threading import Event

from zlib_ng import zlib_ng

from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.pieces import Piece, sources_of
from prunebridge_shim.slicing.shard import ShardFile
from prunebridge_shim.slicing.sources import reopening


class Stopped(Exception):  # noqa: N818 it is no error
    """Raised between two blocks once the run is to end."""


class Cutter:
    """Works for one thread.

    Args:
        stop: Set once the run is to end.
        passed: Told of bytes that were cut, or are to be cut again where they are negative.
    """

    def __init__(self, stop: Event, passed: Callable[[int], None]) -> None:
        self._reader = BlockReader()
        self._stop = stop
        self._passed = passed

    def stored_crc32(self, piece: Piece, file: ShardFile) -> int:
        """The CRC-32 of a piece as it lies in its shard; of fewer bytes where the shard ends before."""
        crc = 0
        for block in file.read(len(file.header) + piece.offset, piece.bytes):
            self._check_stop()
            crc = zlib_ng.crc32(block, crc)
        return crc

    def cut(self, piece: Piece, file: ShardFile) -> tuple[int, int]:
        """Cuts a piece into its shard; gives the descriptor that it was written by, and its CRC-32.

        Raises:
            ShimError: SOURCE_CHANGED where the parent did not stay as it was.
        """
        return reopening(
            partial(self._cut, piece, file), [file.reopen, *(source.reopen for source in sources_of([piece]))]
        )

    def sha256(self, file: ShardFile) -> bytes:
        """The SHA-256 of a shard as it lies on storage."""
        digest = hashlib.sha256()
        for block in file.read(0, file.size):
            self._check_stop()
            digest.update(block)
        return digest.digest()

    def _cut(self, piece: Piece, file: ShardFile) -> tuple[int, int]:
        fd, crc, done = file.fd, 0, 0
        try:
            for part in piece.parts:
                for block in part.cut.read(self._reader, part.region):
                    self._check_stop()
                    file.write(fd, block, piece.offset + done)
                    crc = zlib_ng.crc32(block, crc)
                    done += block.nbytes
                    self._passed(block.nbytes)
                for source in part.cut.stored.files:
                    source.check()
        except BaseException:
            self._passed(-done)
            raise
        return fd, crc

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped
