"""Cuts a child's shards from its parent's, in a job's folder that other processes may share."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from prunebridge_shim.errors import Reason, ShimError, storage_error
from prunebridge_shim.slicing import pieces as sizes
from prunebridge_shim.slicing.apart import check_apart
from prunebridge_shim.slicing.child import ChildLayout, lay_out_child
from prunebridge_shim.slicing.crew import Crew
from prunebridge_shim.slicing.finishing import Shard
from prunebridge_shim.slicing.folder import JobFolder
from prunebridge_shim.slicing.pieces import Piece, cut_pieces, gather_stretches
from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.slicing.room import check_room
from prunebridge_shim.slicing.shard import ShardFile
from prunebridge_shim.slicing.turns import Turns
from prunebridge_shim.tensors import Tick


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is whole: its name, its bytes, its CRC-32, and its SHA-256 where that was asked for."""

    file: str
    size: int
    crc32: int
    sha256: bytes


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        shards: All of its shards.
        found_bytes: Bytes of tensors in them that were cut by earlier runs or by others at work on it.
        folder_id: Tells the job's folder from every other that is ever made under its path.
    """

    shards: list[WrittenShard]
    found_bytes: int
    folder_id: str


def slice_shards(job: SliceJob, tick: Tick) -> Outcome:
    """Writes a child's shards into the folder `child` of a job's own, and ends when all of them are whole.

    Processes that do so at once, on any machines, share the work. A run that is broken off leaves what it had written,
    and the next one goes on from there.

    Args:
        job: What to do. Processes that share it agree on all but the folders' paths.
        tick: Told of bytes of tensors that are there; may raise to end the run.

    Raises:
        ShimError: the request, the index sets and the files do not agree, another job is being cut in the folder, the
            parent changed, or storage failed.
        OSError: storage failed before anything was written.
    """
    with ExitStack() as stack:
        child = lay_out_child(job, stack)
        pieces = cut_pieces(child.shards)
        total = sum(piece.bytes for piece in pieces)
        check_apart(job.job_dir, job.source_dir, [source.path for source in child.sources])
        folder = JobFolder(job.job_dir, _identity(job, child), job.flush, partial(tick, 0, total), stack)
        try:
            shards = _open_shards(folder, child, stack)
            turns = Turns(folder, gather_stretches(pieces), len(shards), job.sha256)
            check_room(folder.path, _left(pieces, turns))
            crew = Crew(job, folder, shards, pieces, turns)
            crew.work(tick)
            for source in child.sources:
                source.check_path()
            folder.write_beside(child.beside)
            folder.check()
        except BaseException as error:
            named = _leave(folder, pieces, error)
            if named is error:
                raise
            raise named from error
        folder.leave(done=True, keep=True)
    finished = (turns.known.shards[number] for number in range(len(shards)))
    written = [
        WrittenShard(shard.layout.file, shard.layout.bytes, one.crc32, one.sha256)
        for shard, one in zip(shards, finished, strict=True)
    ]
    return Outcome(written, max(0, total - crew.cut_bytes), folder.folder_id)


def _open_shards(folder: JobFolder, child: ChildLayout, stack: ExitStack) -> list[Shard]:
    """The shards' files, made when they are first written to, and closed by `stack`."""
    where = folder.make_within(child.folder)
    inodes = {source.inode for source in child.sources}
    shards = []
    for layout in child.shards:
        file = ShardFile(folder.open, f"{where}/{layout.file}", layout.header, layout.bytes, inodes)
        stack.callback(file.close)
        shards.append(Shard(file, layout))
    return shards


def _identity(job: SliceJob, child: ChildLayout) -> str:
    """What tells a job from others. Paths are no part of it: machines may see the same folders under other names."""
    described = {
        "sizes": [sizes.PIECE_BYTES, sizes.STRETCH_BYTES],
        "flush": job.flush,  # what is not flushed is not to be believed by who wants it so
        "shards": job.shards,
        "sets": {name: hashlib.sha256(kept.tobytes()).hexdigest() for name, kept in job.sets.items()},
        "sources": child.parent,
        "torch_dist": job.torch_dist,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=vars).encode()).hexdigest()


def _left(pieces: Sequence[Piece], turns: Turns) -> int:
    recorded = turns.known.pieces.keys() | turns.doubted.keys()
    return sum(piece.bytes for piece in pieces if piece.number not in recorded)


def _leave(folder: JobFolder, pieces: Sequence[Piece], error: BaseException) -> BaseException:
    """Leaves a job that failed, and gives the error that says what is kept of it."""
    named = storage_error(error) if isinstance(error, OSError) else error
    kept: set[int] = set()
    keep = True
    with suppress(OSError):  # what failed the run may fail this too
        if not folder.open.is_there:
            named = folder.removed() if isinstance(error, OSError) else error
        elif isinstance(named, ShimError) and named.reason is Reason.SOURCE_CHANGED:
            keep = False
        else:
            folder.journals.refresh()
            kept = {number for records in folder.journals.records.values() for number in records.pieces}
            keep = bool(kept)
    with suppress(OSError):
        folder.leave(done=False, keep=keep)
    if not kept or not isinstance(named, ShimError):
        return named
    stored = sum(piece.bytes for piece in pieces if piece.number in kept)
    again = f"run the same again to go on: {stored:,} bytes are kept in {folder.path}; or remove that folder"
    return ShimError(named.reason, named.message, f"{named.hint}; {again}" if named.hint else again)
