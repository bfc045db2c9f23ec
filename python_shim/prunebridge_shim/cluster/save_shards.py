"""The shards of a child, as one of the ranks that write them has them."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from prunebridge_shim.errors import Reason, ShimError, storage_error
from prunebridge_shim.slicing.layout import ShardLayout
from prunebridge_shim.slicing.leftovers import CHILD
from prunebridge_shim.slicing.opened import OpenFolder
from prunebridge_shim.slicing.shard import ShardFile, join_crc32
from prunebridge_shim.slicing.sources import reopening


@dataclass
class Stretch:
    """Bytes that a rank has written in a row: from where on behind the shard's header, how many, and their CRC-32."""

    shard: int
    offset: int
    bytes: int
    crc32: int


class Shards:
    """Writes to shards. What fails is kept for later: others may be waiting for this rank to exchange rows with them.

    Args:
        rank: This rank's number.
        folder: The job's open folder, which is closed in the end.
        shards: The shards.
        flush: Whether what is written is to be on the disk.
        stack: Closes the files in the end.

    Attributes:
        failure: What went wrong first. Nothing is written any more.
        stretches: What was written.
        written: Its bytes.
    """

    def __init__(
        self, rank: int, folder: OpenFolder, shards: Sequence[ShardLayout], flush: bool, stack: ExitStack
    ) -> None:
        self._rank = rank
        stack.callback(folder.close)
        self.files = [ShardFile(folder, f"{CHILD}/{one.file}", one.header, one.bytes, ()) for one in shards]
        stack.callback(self._close)
        self._flush = flush
        self._flushing: Future[None] | None = None
        self._behind = ThreadPoolExecutor(1, "prunebridge-flush")
        stack.callback(self._behind.shutdown)
        self._unflushed: set[tuple[ShardFile, int]] = set()
        self.failure: ShimError | None = None
        self.stretches: list[Stretch] = []
        self.written = 0

    def write(self, shard: int, offset: int, block: NDArray[np.uint8]) -> None:
        """Writes a block at its offset behind the shard's header."""
        if self.failure is not None:
            return
        file = self.files[shard]
        try:
            reopening(partial(self._write, file, offset, block), [file.reopen])
        except OSError as error:
            self._fail(error)
            return
        self.written += block.nbytes
        last = self.stretches[-1] if self.stretches else None
        if last is not None and (last.shard, last.offset + last.bytes) == (shard, offset):
            last.bytes += block.nbytes
            last.crc32 = zlib_ng.crc32(block, last.crc32)
        else:
            self.stretches.append(Stretch(shard, offset, block.nbytes, zlib_ng.crc32(block)))

    def flush_behind(self) -> None:
        """Has what was written put on the disk while more is written, once all that was before it is there."""
        self._settle()
        if self._flush:
            unflushed, self._unflushed = self._unflushed, set()
            self._flushing = self._behind.submit(_flush, unflushed)

    def finish(self) -> None:
        """Ends writing: what was written is flushed, and there for other machines too."""
        self.flush_behind()
        self._settle()
        self._close()

    def commit(self) -> None:
        """Makes the shards valid, once all ranks have written to them; raises what storage refuses."""
        for file in self.files:
            file.commit(self._flush)
        self._close()
        if self.failure is not None:
            raise self.failure

    def hash(self, shard: int, digests: dict[int, bytes]) -> Iterator[int]:
        """Reads a shard back, and adds the SHA-256 that it will have; yields the bytes that were read."""
        file = self.files[shard]
        digest = hashlib.sha256(file.header)
        for block in file.read(len(file.header), file.size - len(file.header)):
            digest.update(block)
            yield len(block)
        digests[shard] = digest.digest()

    def _settle(self) -> None:
        flushing, self._flushing = self._flushing, None
        try:
            if flushing is not None:
                flushing.result()
        except OSError as error:
            self._fail(error)

    def _close(self) -> None:
        # File servers pass on what was written when it is closed, and may have no room for it.
        try:
            with ExitStack() as stack:
                for file in self.files:
                    stack.callback(file.close)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self.failure is None:
            named = storage_error(error)
            self.failure = ShimError(named.reason, f"rank {self._rank}: {named.message}", named.hint)

    def _write(self, file: ShardFile, offset: int, block: NDArray[np.uint8]) -> None:
        fd = file.fd
        file.write(fd, block, offset)
        self._unflushed.add((file, fd))


def _flush(written: set[tuple[ShardFile, int]]) -> None:
    for file, fd in written:
        file.flush(fd)


def crc32_of(number: int, shard: ShardLayout, stretches: Sequence[Stretch]) -> int:
    """The CRC-32 of a shard, from what the ranks have written to it; raises INTERNAL where that is not all of it."""
    own = sorted((one for one in stretches if one.shard == number), key=lambda one: one.offset)
    ends = [0, *accumulate(one.bytes for one in own)]
    for begin, stretch in zip(ends, [*own, Stretch(number, shard.bytes - len(shard.header), 0, 0)], strict=True):
        if stretch.offset != begin:
            raise ShimError(
                Reason.INTERNAL,
                f"the ranks wrote byte {min(begin, stretch.offset)} of {shard.file} twice or not at all",
                "the job shares its weights out in a way that is not known here: report it with its parallel sizes",
            )
    return join_crc32(shard.header, [(one.crc32, one.bytes) for one in own])
