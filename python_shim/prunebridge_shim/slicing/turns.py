"""What is to be done next, by all that is known of the processes at work on a job."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunebridge_shim.slicing.folder import JobFolder
from prunebridge_shim.slicing.journal import Records
from prunebridge_shim.slicing.pieces import Piece, Stretch


@dataclass(frozen=True)
class CutTurn:
    """A piece to cut. Where owners that are gone recorded a CRC-32 of it, it may be there already."""

    piece: Piece
    recorded: frozenset[int]


@dataclass(frozen=True)
class FinishTurn:
    """A shard to finish: all of its pieces are on the disk, with these CRC-32s by their numbers."""

    shard: int
    crcs: Mapping[int, int]


Turn = CutTurn | FinishTurn


class Turns:
    """Shares the work out. Not safe for threads: whoever calls holds a lock.

    Args:
        folder: The job's folder.
        stretches: All of its pieces.
        shards: How many shards it has.
        sha256: Whether a shard is finished only with its SHA-256.

    Attributes:
        known: What was done by this process and by others that are there; need not be checked again.
        doubted: The CRC-32s of each piece that owners recorded which are gone.
    """

    def __init__(self, folder: JobFolder, stretches: Sequence[Stretch], shards: int, sha256: bool) -> None:
        self._folder = folder
        self._stretches = stretches
        self._shards = range(shards)
        self._sha256 = sha256
        self._held: dict[int, deque[Piece]] = {}
        self._handed_out: set[int] = set()
        self._finishing: set[int] = set()
        self.known = Records()
        self.doubted: dict[int, set[int]] = {}
        self.refresh()

    @property
    def over(self) -> bool:
        """Whether every shard is finished."""
        return len(self.known.shards) == len(self._shards)

    def refresh(self) -> None:
        """Looks what is done and held by now."""
        folder = self._folder
        folder.leases.refresh()
        folder.journals.refresh()
        self.known, self.doubted = Records(), {}
        for owner, records in folder.journals.records.items():
            if owner != folder.owner.name and folder.witness.is_gone(owner):
                for number, crc in records.pieces.items():
                    self.doubted.setdefault(number, set()).add(crc)
            else:
                self._trust(records)

    def record(self, records: Records) -> None:
        """Takes in what this process has done."""
        self._handed_out.difference_update(records.pieces)
        self._finishing.difference_update(records.shards)
        self._trust(records)

    def next(self, worker: int) -> Turn | None:
        """The next turn of one of the process's workers; None where all that is left is in the hands of others."""
        if self._held.get(worker):
            return self._hand_out(self._held[worker])
        self.refresh()
        finish = self._finish()
        if finish:
            return finish
        taken = self._take()
        if taken:
            self._held[worker] = taken
            return self._hand_out(taken)
        fullest = max(self._held.values(), key=len, default=None)
        return self._hand_out(fullest) if fullest else None

    def _trust(self, records: Records) -> None:
        self.known.pieces.update(records.pieces)
        self.known.shards.update({n: done for n, done in records.shards.items() if done.sha256 or not self._sha256})

    def _hand_out(self, pieces: deque[Piece]) -> CutTurn:
        piece = pieces.popleft()
        self._handed_out.add(piece.number)
        return CutTurn(piece, frozenset(self.doubted.get(piece.number, ())))

    def _finish(self) -> FinishTurn | None:
        unknown = {s.shard for s in self._stretches if any(p.number not in self.known.pieces for p in s.pieces)}
        for shard in self._shards:
            if shard in unknown or shard in self._finishing or shard in self.known.shards:
                continue
            if self._obtain(f"shard-{shard}"):
                self._finishing.add(shard)
                return FinishTurn(shard, dict(self.known.pieces))
        return None

    def _take(self) -> deque[Piece] | None:
        """Takes the missing pieces of a stretch, of a shard that few write to: a file's writers wait for each other."""
        in_hand = {piece.number for pieces in self._held.values() for piece in pieces} | self._handed_out
        missing = [(s, [p for p in s.pieces if p.number not in self.known.pieces]) for s in self._stretches]
        free = [(s, deque(p for p in pieces if p.number not in in_hand)) for s, pieces in missing if pieces]
        writers = Counter(stretch.shard for stretch, _ in free if self._is_held(str(stretch.number)))
        for stretch, pieces in sorted(free, key=lambda item: (writers[item[0].shard], item[0].number)):
            if pieces and self._obtain(str(stretch.number)):
                return pieces
        return None

    def _obtain(self, share: str) -> bool:
        """Takes a share that nobody is at work on; True for one's own, which may have to be done again."""
        lease = self._folder.leases.of(share)
        is_own = lease is not None and lease.owner == self._folder.owner.name
        return is_own or (not self._is_held(share) and self._folder.leases.take(share))

    def _is_held(self, share: str) -> bool:
        lease = self._folder.leases.of(share)
        return lease is not None and self._folder.witness.is_at_work(lease.owner, lease.name)
