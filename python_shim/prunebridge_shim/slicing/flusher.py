"""Puts finished pieces on the disk and then into the journal, beside the workers that go on cutting."""

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore

from prunebridge_shim.slicing.journal import Records
from prunebridge_shim.slicing.pieces import Piece
from prunebridge_shim.slicing.shard import ShardFile

UNFLUSHED = 8
"""Pieces at most that are cut and not on the disk: workers wait for a disk that is slower than they are."""

LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Done:
    """A piece that is written: to which file, by which of its descriptors, and its CRC-32."""

    piece: Piece
    file: ShardFile
    fd: int
    crc32: int


class Flusher:
    """Takes pieces from any thread, and works in the one that calls `run`.

    Args:
        record: Told of pieces that are on the disk, before room is made for others.
        flush: Whether files are flushed at all, or left to the operating system.
        stop: Set where nobody wants the pieces any more.
    """

    def __init__(self, record: Callable[[Records], None], flush: bool, stop: Event) -> None:
        self._record = record
        self._flush = flush
        self._stop = stop
        self._waiting: SimpleQueue[Done | None] = SimpleQueue()
        self._room = Semaphore(UNFLUSHED)

    def put(self, done: Done) -> None:
        """Hands over a piece; waits while too many are not flushed."""
        while not self._stop.is_set():
            if self._room.acquire(timeout=LOOK_SECONDS):
                self._waiting.put(done)
                return

    def end(self) -> None:
        """Ends `run` once what was handed over is flushed."""
        self._waiting.put(None)

    def run(self) -> None:
        """Flushes what comes, each time as much as came meanwhile, with one flush for each file."""
        ended = False
        while not ended:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            ended = None in batch
            self._store([done for done in batch if done is not None])

    def _store(self, batch: list[Done]) -> None:
        if not batch:
            return
        if self._flush:
            for file, fd in {(done.file, done.fd) for done in batch}:
                file.flush(fd)
        self._record(Records({done.piece.number: done.crc32 for done in batch}))
        self._room.release(len(batch))
