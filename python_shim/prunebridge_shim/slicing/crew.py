"""The threads of one process at work on a job: some read, gather and write pieces, and one flushes them."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Condition, Event, Lock

from prunebridge_shim.slicing.cutting import Cutter, Stopped
from prunebridge_shim.slicing.finishing import Shard
from prunebridge_shim.slicing.flusher import Done, Flusher
from prunebridge_shim.slicing.folder import JobFolder
from prunebridge_shim.slicing.journal import Finished, Records
from prunebridge_shim.slicing.pieces import Piece, sources_of
from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.slicing.turns import CutTurn, FinishTurn, Turns
from prunebridge_shim.tensors import Tick

WORKERS = 2
"""More gain nothing: two saturate a disk, and memory's bandwidth on most machines."""

TICK_SECONDS = 0.1

POLL_SECONDS = 1.0
"""Between two looks at what others do, while there is nothing to do."""


class Crew:
    """Works until every shard is whole, be it by others.

    Args:
        job: What to do.
        folder: Where.
        shards: What to write.
        pieces: What they are made of.
        turns: Which of that is next.

    Attributes:
        cut_bytes: Bytes of tensors that this process cut.
    """

    def __init__(
        self, job: SliceJob, folder: JobFolder, shards: Sequence[Shard], pieces: Sequence[Piece], turns: Turns
    ) -> None:
        self._job = job
        self._folder = folder
        self._shards = shards
        self._pieces = pieces
        self._turns = turns
        self._changed = Condition()
        self._stop = Event()
        self._flusher = Flusher(self._record, job.flush, self._stop)
        self._lock = Lock()
        self._total = sum(piece.bytes for piece in pieces)
        self._passed = 0
        self._told = 0
        self._own: set[int] = set()
        self.cut_bytes = 0

    def work(self, tick: Tick) -> None:
        """Does what is left to do; raises what went wrong in any thread, once all have ended."""
        with ThreadPoolExecutor(WORKERS + 1, "slice") as pool:
            flusher = pool.submit(self._flusher.run)
            workers = [pool.submit(self._work, number) for number in range(WORKERS)]
            try:
                self._await(flusher, workers, tick)
            finally:
                self._stop.set()
                self._flusher.end()

    def _await(self, flusher: Future[None], workers: Sequence[Future[None]], tick: Tick) -> None:
        running = set(workers)
        while running:
            self._tell(tick)
            self._folder.beat()
            ended, running = wait(running, TICK_SECONDS, FIRST_EXCEPTION)
            if flusher.done():
                ended.add(flusher)
            for thread in ended:
                thread.result()
        self._tell(tick)

    def _tell(self, tick: Tick) -> None:
        """Says how far the job is: by what this process has passed, and what is known of others."""
        known = self._turns.known.pieces
        of_others = sum(
            piece.bytes for piece in self._pieces if piece.number in known and piece.number not in self._own
        )
        self._told = max(self._told, min(self._passed + of_others, self._total))
        tick(self._told, self._total)

    def _work(self, worker: int) -> None:
        cutter = Cutter(self._stop, self._pass)
        try:
            while not self._stop.is_set():
                with self._changed:
                    turn = self._turns.next(worker)
                    if self._turns.over:
                        return
                    if turn is None:
                        self._changed.wait(POLL_SECONDS)
                        continue
                if isinstance(turn, CutTurn):
                    self._flusher.put(self._obtain(cutter, turn))
                else:
                    self._finish(cutter, turn)
        except Stopped:
            return

    def _obtain(self, cutter: Cutter, turn: CutTurn) -> Done:
        """Has a piece in its shard: finds it there, or cuts it."""
        piece = turn.piece
        file = self._shards[piece.shard].file
        if turn.recorded:
            crc = cutter.stored_crc32(piece, file)
            if crc in turn.recorded:
                self._pass(piece.bytes, cut=False)
                return Done(piece, file, file.fd, crc)
        return Done(piece, file, *cutter.cut(piece, file))

    def _finish(self, cutter: Cutter, turn: FinishTurn) -> None:
        shard = self._shards[turn.shard]
        pieces = [piece for piece in self._pieces if piece.shard == turn.shard]
        for source in sources_of(pieces):
            source.check()
        crc = shard.commit(pieces, turn.crcs, self._job.flush)
        if self._job.flush:
            self._folder.sync_child()
        sha256 = b""
        if self._job.sha256:
            shard.file.reopen()  # has a file server look what is there by now, whoever wrote it
            sha256 = cutter.sha256(shard.file)
        self._record(Records(shards={turn.shard: Finished(crc, sha256)}))

    def _record(self, records: Records) -> None:
        self._own.update(records.pieces)
        self._folder.journal.append(records, self._job.flush)
        with self._changed:
            self._turns.record(records)
            self._changed.notify_all()

    def _pass(self, count: int, cut: bool = True) -> None:
        with self._lock:
            self._passed += count
            if cut:
                self.cut_bytes += count
