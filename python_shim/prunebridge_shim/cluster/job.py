"""The job that the shim is a guest of, as the rest of the shim sees it."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch.distributed as dist
from torch import nn

from prunebridge_shim.cluster.board import Board, open_store
from prunebridge_shim.cluster.collect import collect
from prunebridge_shim.cluster.exchange import LEADER, Exchange
from prunebridge_shim.cluster.facts import Facts, find_facts
from prunebridge_shim.cluster.follower import Follower
from prunebridge_shim.cluster.group import Words
from prunebridge_shim.cluster.leader import Leader
from prunebridge_shim.cluster.loss import evaluate_loss
from prunebridge_shim.cluster.rank import Rank, find_rank
from prunebridge_shim.cluster.roll_call import once_all_have_come
from prunebridge_shim.cluster.save_folder import saving_into
from prunebridge_shim.cluster.save_plan import SaveJob
from prunebridge_shim.cluster.saving import save_model
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import Collected
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.run import Outcome
from prunebridge_shim.tensors import Ask, Tick

DEADLINE_S = 60.0
WAIT_S = 600.0
"""As long as NCCL waits for a rank: some may still be storing a checkpoint."""


RETURN, LEAVE = "return", "leave"
"""Commands that end following, for a while and for good."""


class LeadingRank:
    """Rank 0 of the job: what it is asked for, all ranks do. One call at a time.

    Attributes:
        facts: What the job and its model are.
    """

    def __init__(self, rank: Rank, facts: Facts, board: Board, deadline_s: float) -> None:
        self.facts = facts
        self._rank = rank
        self._leader = Leader(rank.exchange, board, deadline_s)

    def collect(self, points: Sequence[HookPoint], feed: Iterable[Ask], tick: Tick) -> Collected:
        """Measures over a feed's batches; the accumulators are those of one rank that holds the whole model.

        Raises:
            ShimError: RANK_LOST where a rank is, after which nothing can be asked for any more; as `collect.collect`.
        """
        words = {"kind": "collect", "points": [asdict(point) for point in points]}
        return self._leader.run(words, lambda: collect(self._rank, points, feed, tick))

    def evaluate_loss(self, feed: Iterable[Ask], tick: Tick) -> tuple[float, int]:
        """Gives the mean next-token loss over a feed's batches in nats per token, and the tokens that were predicted.

        Raises:
            ShimError: RANK_LOST as above; as `loss.evaluate_loss`.
        """
        return self._leader.run({"kind": "evaluate_loss"}, lambda: evaluate_loss(self._rank, feed, tick))

    def save_model(self, job: SaveJob, tick: Tick) -> Outcome:
        """Saves a child from the live weights into the folder `child` of a job's own; gives its shards.

        Nothing of that folder is left where it fails.

        Raises:
            ShimError: RANK_LOST as above; as `saving.save_model`.
        """
        with saving_into(job, tick) as folder:
            return self._leader.run({"kind": "save_model"}, lambda: save_model(self._rank, job, folder, tick))

    @property
    def over(self) -> ShimError | None:
        """Why nothing can be asked for any more."""
        return self._leader.over

    @property
    def lost(self) -> ShimError | None:
        """Why nothing could be asked for now: ranks give no sign of life, for as long as they do not."""
        return self._leader.lost

    def signal(self, value: bool) -> bool:
        """Says something to all followers, who call `signal` too, and waits for none; raises RANK_LOST."""
        return self._leader.signal(value)

    def agree(self, error: ShimError | None) -> None:
        """Raises what went wrong on any rank on all of them, each of which calls this."""
        self._leader.agree(error)

    def rest(self) -> None:
        """Says that nothing is asked for a while."""
        self._leader.rest()

    def call_together(self, wait_s: float) -> None:
        """Waits for all followers to follow; raises RANK_LOST with those that do not in time."""
        self._leader.call_together(wait_s)

    def send_back(self) -> None:
        """Has all followers return to the job until they follow again; raises RANK_LOST where one is."""
        self._leader.run({"kind": RETURN}, lambda: None)
        self.rest()

    def leave(self) -> None:
        """Has all followers return to the job for good; raises RANK_LOST where one is."""
        try:
            self._leader.run({"kind": LEAVE}, lambda: None)
        finally:
            self._leader.close()

    def close(self) -> None:
        """Leaves at once with all others, who have agreed to."""
        self._leader.close()

    def abandon(self, error: BaseException) -> None:
        """Leaves without the others, which are told why."""
        self._leader.abandon(error)


class FollowingRank:
    """Any other rank of the job."""

    def __init__(self, rank: Rank, board: Board, deadline_s: float) -> None:
        self._rank = rank
        self._follower = Follower(rank.exchange, board, deadline_s)
        self._has_left = False
        self._kinds: Mapping[str, Callable[[Words], Any]] = {
            "collect": self._collect,
            "evaluate_loss": self._evaluate_loss,
            "save_model": self._save_model,
        }

    def follow(self) -> None:
        """Does what the leader is asked for, until it sends its followers back to the job or leaves.

        Raises:
            ShimError: RANK_LOST where the leader is, or gives up because another rank is. A thread may then be left in
                a collective: a process that has nothing else to do ends best by `os._exit`.
        """
        try:
            self._follower.follow(self._act)
        except BaseException:
            self._has_left = True
            raise
        finally:
            if self._has_left:
                self._follower.close()

    def signal(self, value: bool) -> bool:
        """Gives what the leader says; raises RANK_LOST."""
        return self._follower.signal(value)

    def rest(self) -> None:
        """Says that nothing is asked for a while."""
        self._follower.rest()

    def agree(self, error: ShimError | None) -> None:
        """Raises what went wrong on any rank on all of them, each of which calls this."""
        self._follower.agree(error)

    def close(self) -> None:
        """Leaves at once with all others, who have agreed to."""
        self._follower.close()

    def abandon(self, error: BaseException) -> None:
        """Leaves without the others, which will take this rank for lost."""
        self._follower.abandon(error)

    def _act(self, words: Words) -> bool:
        kind: str = words["kind"]
        if kind in (RETURN, LEAVE):
            self._has_left = kind == LEAVE
            return False
        self._kinds[kind](words)
        return True

    def _collect(self, words: Words) -> None:
        collect(self._rank, [HookPoint(**point) for point in words["points"]], (), _no_tick)

    def _evaluate_loss(self, _words: Words) -> None:
        evaluate_loss(self._rank, (), _no_tick)

    def _save_model(self, _words: Words) -> None:
        save_model(self._rank, None, None, _no_tick)


def join(
    model: nn.Module | Sequence[nn.Module], deadline_s: float = DEADLINE_S, wait_s: float = WAIT_S
) -> LeadingRank | FollowingRank:
    """Makes this rank of a Megatron-Core job one of those that work together. Every rank has to call it.

    Args:
        model: The model as the job has it: wrapped or not, and a list of chunks where pipeline stages are virtual.
        deadline_s: Seconds by which a rank that died, was stopped or went its own way is known to be lost.
        wait_s: Seconds by which all ranks have to have called.

    Returns:
        On rank 0 what leads; on all others what follows.

    Raises:
        ShimError: RANK_LOST with the ranks that did not call, INVALID_REQUEST where there is no job or no model of
            Megatron-Core's, MISSING_DEPENDENCY.
    """
    _check_job()
    return once_all_have_come(lambda: _join(model, deadline_s), wait_s, deadline_s)


def _check_job() -> None:
    try:
        from megatron.core import parallel_state as ps
    except ImportError as error:
        message = f"this interpreter cannot import megatron.core: {sys.executable} ({error})"
        raise ShimError(Reason.MISSING_DEPENDENCY, message, "pip install megatron-core") from error
    if not dist.is_initialized() or not ps.model_parallel_is_initialized():
        raise ShimError(
            Reason.INVALID_REQUEST,
            "this process is no rank of a Megatron-Core job yet",
            "call it after torch.distributed and megatron.core.parallel_state are initialised",
        )


def _join(model: nn.Module | Sequence[nn.Module], deadline_s: float) -> LeadingRank | FollowingRank:
    exchange = Exchange()
    try:
        rank = find_rank(model, exchange)
        facts = find_facts(rank)
    except ShimError:
        exchange.close()
        raise
    read = range(exchange.size) if rank.leads else [LEADER]
    # A follower has to hear from the leader of another's loss before it takes the leader for lost.
    patience_s = deadline_s / 2 if rank.leads else deadline_s * 3 / 4
    board = Board(open_store(exchange, deadline_s), exchange.rank, list(read), patience_s)
    return LeadingRank(rank, facts, board, deadline_s) if rank.leads else FollowingRank(rank, board, deadline_s)


def _no_tick(_done: float, _total: float) -> None:
    """Progress is told on the leader."""
