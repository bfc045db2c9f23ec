"""Cuts shards: two threads read, gather and write one tensor each at a time."""

import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.blocks import BlockReader, Bytes
from prunebridge_shim.slicing.layout import Cut, ShardLayout, lay_out, open_sources
from prunebridge_shim.slicing.request import IndexSets, OutputShard
from prunebridge_shim.slicing.shard import ShardFile
from prunebridge_shim.tensors import Tick

WORKERS = 2
"""More gain nothing: two saturate a disk, and memory's bandwidth on most machines."""

TICK_SECONDS = 0.1


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is on the disk: its name, size and CRC-32."""

    file: str
    bytes: int
    crc32: int


def slice_shards(
    source_dir: Path, target_dir: Path, shards: Sequence[OutputShard], sets: IndexSets, tick: Tick
) -> list[WrittenShard]:
    """Writes shards of a child from the shards of its parent. All are written, or none is left.

    Args:
        source_dir: The parent's folder.
        target_dir: An existing folder, into which the shards go.
        shards: What to write.
        sets: The index sets that the shards refer to.
        tick: Told of bytes written; may raise to end the run.

    Raises:
        ShimError: the request, the index sets and the files do not agree, or a file exists.
        OSError: storage failed.
    """
    files = [shard.file for shard in shards]
    if len(set(files)) < len(files):
        raise ShimError(Reason.INVALID_REQUEST, f"two shards have one name: {', '.join(sorted(files))}")
    with ExitStack() as stack:
        sources = open_sources(source_dir, shards, stack)
        layouts = [lay_out(shard, sources, sets) for shard in shards]
        _check_target(target_dir, sum(layout.bytes for layout in layouts))
        written = _Run(target_dir, layouts).finish(tick)
        _sync_folder(target_dir)
    return written


def _check_target(folder: Path, needed: int) -> None:
    if not folder.is_dir():
        raise ShimError(Reason.PATH_NOT_FOUND, f"{folder} is no folder", "create the target folder first")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ShimError(Reason.STORAGE_FULL, f"the child needs {needed:,} bytes and {folder} has {free:,} free")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _blocks_of(reader: BlockReader, cut: Cut) -> Iterator[Bytes]:
    for region in cut.kept.regions():
        offset = cut.stored.offset + region.start * cut.item_bytes
        yield from reader.read(cut.fd, offset, region.shape, region.axes, cut.item_bytes)


class _Shard:
    """A shard in work. Its file is created when its first tensor's turn comes."""

    def __init__(self, folder: Path, layout: ShardLayout) -> None:
        self.layout = layout
        self.crcs = [0] * len(layout.cuts)
        self.left = len(layout.cuts)
        self.file: ShardFile | None = None
        self._path = folder / layout.file

    def open(self) -> ShardFile:
        if self.file is None:
            self.file = ShardFile(self._path, self.layout.header)
        return self.file

    def finish(self) -> WrittenShard:
        file = self.open()
        file.commit()
        lengths = (cut.bytes for cut in self.layout.cuts)
        return WrittenShard(self.layout.file, self.layout.bytes, file.crc32(list(zip(self.crcs, lengths, strict=True))))


class _Run:
    """The state that the workers share."""

    def __init__(self, folder: Path, layouts: Sequence[ShardLayout]) -> None:
        self._shards = [_Shard(folder, layout) for layout in layouts]
        self._total = sum(cut.bytes for layout in layouts for cut in layout.cuts)
        self._turns = iter([(shard, index) for shard in self._shards for index in range(shard.left)])
        self._written: dict[str, WrittenShard] = {}
        self._done = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def finish(self, tick: Tick) -> list[WrittenShard]:
        try:
            with ThreadPoolExecutor(WORKERS, "slice") as pool:
                self._await([pool.submit(self._work) for _ in range(WORKERS)], tick)
        except BaseException:
            for shard in self._shards:
                if shard.file is not None:
                    shard.file.discard()
            raise
        return [self._written[shard.layout.file] for shard in self._shards]

    def _await(self, workers: list[Future[None]], tick: Tick) -> None:
        try:
            running = set(workers)
            while running:
                tick(self._done, self._total)
                ended, running = wait(running, TICK_SECONDS, FIRST_EXCEPTION)
                for worker in ended:
                    worker.result()
            tick(self._done, self._total)
        finally:
            self._stop.set()

    def _work(self) -> None:
        reader = BlockReader()
        while not self._stop.is_set():
            with self._lock:
                shard, index = next(self._turns, (None, 0))
                if shard is None:
                    return
                file = shard.open()
            shard.crcs[index] = self._copy(reader, shard.layout.cuts[index], file)
            with self._lock:
                shard.left -= 1
                last = shard.left == 0
            if last and not self._stop.is_set():
                self._written[shard.layout.file] = shard.finish()

    def _copy(self, reader: BlockReader, cut: Cut, file: ShardFile) -> int:
        crc, offset = 0, cut.offset
        for block in _blocks_of(reader, cut):
            if self._stop.is_set():
                break
            file.write(block, offset)
            crc = zlib.crc32(block.data, crc)
            offset += block.nbytes
            with self._lock:
                self._done += block.nbytes
        return crc
