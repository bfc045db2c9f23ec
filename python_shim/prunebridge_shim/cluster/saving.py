"""Saves a child of the job's model from its live weights: each rank cuts what it holds, and writes it to its place."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from prunebridge_shim.cluster.holdings import Holding, find_holdings
from prunebridge_shim.cluster.layout import LocalModel
from prunebridge_shim.cluster.rank import Rank
from prunebridge_shim.cluster.save_bands import BandCutter
from prunebridge_shim.cluster.save_folder import SaveFolder, open_made
from prunebridge_shim.cluster.save_plan import SaveJob, lay_out_shards
from prunebridge_shim.cluster.save_rounds import ROUND_BYTES, plan_rounds, tell
from prunebridge_shim.cluster.save_shards import Shards, Stretch, crc32_of
from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory, storage_error, text_of
from prunebridge_shim.slicing.layout import ShardLayout
from prunebridge_shim.slicing.run import Outcome, WrittenShard
from prunebridge_shim.tensors import Tick

WORKSPACE_BYTES = 64 << 20
"""For blocks on their way: the kept part of one, what is exchanged, and what is put together of that."""

log = logging.getLogger(__name__)


def save_model(rank: Rank, job: SaveJob | None, folder: SaveFolder | None, tick: Tick) -> Outcome:
    """Writes a child's shards into the folder `child` of a job's own. Every rank has to call it.

    The model stays as it is, down to the order of what the job does next; parameters that are on their way from other
    ranks are waited for. A rank needs memory for a few blocks beside its model.

    Args:
        rank: This rank.
        job: What to save, on the leader.
        folder: Where, on the leader.
        tick: Hears of bytes that are written, on the leader; it may raise there.

    Returns:
        The shards. What is told of them is right on the leader.

    Raises:
        AgreedError: On all ranks: BAD_TENSOR, INVALID_REQUEST or PATH_DENIED where the request, the index sets and the
            model do not agree, TARGET_BUSY, STORAGE_FULL, STORAGE_FAILED, CANCELLED; PATH_NOT_FOUND where a rank does
            not see the folder.
    """
    exchange = rank.exchange
    job = exchange.share(job)
    holdings = exchange.attempt(lambda: _prepare(rank))
    shards, parts = exchange.attempt(lambda: lay_out_shards(job))
    told = exchange.gather(tell(holdings))
    total = sum(shard.bytes - len(shard.header) for shard in shards)
    rounds = exchange.lead(lambda: plan_rounds(parts, told))
    identity = exchange.lead(lambda: folder.make(total) if folder else "")
    with ExitStack() as stack:
        opened = exchange.attempt(lambda: open_made(job.job_dir, identity))
        written = Shards(exchange.rank, opened, shards, job.flush, stack)
        saving = _Saving(rank, written, shards, folder, tick, total)
        _await_parameters(rank.model)
        cutter = BandCutter(parts, holdings, written.write)
        for bands in rounds:
            for band in bands:
                cutter.cut(band)
            written.flush_behind()
            saving.meet()
        written.finish()
        saving.meet()
        digests = saving.hash() if job.sha256 else {}
        stretches = list(chain.from_iterable(exchange.gather(written.stretches)))
        return exchange.lead(lambda: saving.commit(digests, stretches))


def _prepare(rank: Rank) -> list[Holding]:
    """Finds what this rank holds, and room to work in: from then on ranks wait for each other's columns."""
    try:
        torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=rank.model.device)
        return find_holdings(rank.model, rank.layout)
    except ShimError:
        raise
    except Exception as error:
        log.exception("the model cannot be saved")
        if is_out_of_memory(error):
            message = f"rank {rank.layout.rank} has no {WORKSPACE_BYTES >> 20} MiB left beside its model"
            raise ShimError(
                Reason.GPU_OOM, message, "save where the job holds less: between steps, without gradients"
            ) from error
        message = f"Megatron-Core cannot tell where the weights of this model lie: {text_of(error)}"
        raise ShimError(
            Reason.INVALID_REQUEST, message, "have the job save its own checkpoint, and slice that"
        ) from error


def _await_parameters(model: LocalModel) -> None:
    chunk: Any
    for chunk in model.wrapped:
        # Otherwise the next forward pass would wait for them.
        if getattr(chunk, "use_forward_hook", False):
            chunk.start_param_sync(force_sync=True)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class _Saving:
    """What this rank does of a save beside cutting."""

    rank: Rank
    written: Shards
    shards: Sequence[ShardLayout]
    folder: SaveFolder | None
    tick: Tick
    total: int

    def meet(self) -> None:
        """Hears of all ranks how far they are; raises on all of them what went wrong on one."""
        done = sum(self.rank.exchange.gather(self.written.written))
        failure = self.written.failure
        if self.folder is not None:
            try:
                self.folder.beat()
                self.tick(done, self.total)
            except ShimError as error:
                failure = failure or error
            except OSError as error:
                failure = failure or storage_error(error)
        self.rank.exchange.agree(failure)

    def hash(self) -> dict[int, bytes]:
        """The SHA-256 of each shard, on the leader; each rank reads some of them."""
        digests: dict[int, bytes] = {}
        ranks = self.rank.exchange.size
        mine = range(self.rank.layout.rank, len(self.shards), ranks)
        blocks = chain.from_iterable(self.written.hash(number, digests) for number in mine)
        most = max(sum(shard.bytes for shard in self.shards[rank::ranks]) for rank in range(ranks))
        for _ in range(most // ROUND_BYTES + 1):
            self.rank.exchange.attempt(lambda: _draw(blocks, ROUND_BYTES))
            self.meet()
        return {number: digest for found in self.rank.exchange.gather(digests) for number, digest in found.items()}

    def commit(self, digests: Mapping[int, bytes], stretches: Sequence[Stretch]) -> Outcome:
        """Makes the shards valid, on the leader: all of them are written."""
        checksums = [crc32_of(number, shard, stretches) for number, shard in enumerate(self.shards)]
        self.written.commit()
        folder_id = self.folder.finish() if self.folder else ""
        shards = [
            WrittenShard(shard.file, shard.bytes, crc32, digests.get(number, b""))
            for number, (shard, crc32) in enumerate(zip(self.shards, checksums, strict=True))
        ]
        return Outcome(shards, found_bytes=0, folder_id=folder_id)


def _draw(blocks: Iterator[int], most: int) -> None:
    drawn = 0
    while drawn < most and (size := next(blocks, 0)):
        drawn += size
