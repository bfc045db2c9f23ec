"""The job that the shim is a guest of, as the rest of the shim sees it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from torch import nn

from prunebridge_shim.cluster.board import Board, open_store
from prunebridge_shim.cluster.collect import collect
from prunebridge_shim.cluster.exchange import LEADER, Exchange
from prunebridge_shim.cluster.group import NEXT_STEP, Follower, Leader, Words
from prunebridge_shim.cluster.loss import evaluate_loss
from prunebridge_shim.cluster.rank import Rank, find_rank
from prunebridge_shim.cluster.roll_call import await_all_ranks
from prunebridge_shim.cluster.save_folder import saving_into
from prunebridge_shim.cluster.save_plan import SaveJob
from prunebridge_shim.cluster.saving import save_model
from prunebridge_shim.cluster.task import Task
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import Collected
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.run import Outcome
from prunebridge_shim.tensors import Ask, Tick

DEADLINE_S = 60.0
WAIT_S = 600.0
"""As long as NCCL waits for a rank: some may still be storing a checkpoint."""


class LeadingRank:
    """Rank 0 of the job: what it is asked for, all ranks do. One call at a time."""

    def __init__(self, rank: Rank, board: Board, deadline_s: float) -> None:
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

    def leave(self) -> None:
        """Has all followers return to the job; raises RANK_LOST where one is."""
        try:
            self._leader.run({"kind": "leave"}, lambda: None)
        finally:
            self._leader.close()


class FollowingRank:
    """Any other rank of the job."""

    def __init__(self, rank: Rank, board: Board, deadline_s: float) -> None:
        self._rank = rank
        self._follower = Follower(rank.exchange, board, deadline_s)

    def follow(self) -> None:
        """Does what the leader is asked for, until it leaves.

        Raises:
            ShimError: RANK_LOST where the leader is, or gives up because another rank is. A thread may then be left in
                a collective: a process that has nothing else to do ends best by `os._exit`.
        """
        try:
            self._follower.follow(self._act)
        finally:
            self._follower.close()

    def _act(self, words: Words) -> bool:
        kind: str = words["kind"]
        if kind == "collect":
            points = [HookPoint(**point) for point in words["points"]]
            collect(self._rank, points, (), _no_tick)
        if kind == "evaluate_loss":
            evaluate_loss(self._rank, (), _no_tick)
        if kind == "save_model":
            save_model(self._rank, None, None, _no_tick)
        return kind != "leave"


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
        ShimError: RANK_LOST with the ranks that did not call.
    """
    await_all_ranks(wait_s)
    task = Task(lambda: _join(model, deadline_s))
    if not task.wait(deadline_s):
        raise ShimError(
            Reason.RANK_LOST, f"not all ranks are joined after {deadline_s:g} s, and all had come", NEXT_STEP
        )
    return task.result()


def _join(model: nn.Module | Sequence[nn.Module], deadline_s: float) -> LeadingRank | FollowingRank:
    exchange = Exchange()
    rank = find_rank(model, exchange)
    read = range(exchange.size) if rank.leads else [LEADER]
    # A follower has to hear from the leader of another's loss before it takes the leader for lost.
    patience_s = deadline_s / 2 if rank.leads else deadline_s * 3 / 4
    board = Board(open_store(exchange, deadline_s), exchange.rank, list(read), patience_s)
    kind = LeadingRank if rank.leads else FollowingRank
    return kind(rank, board, deadline_s)


def _no_tick(_done: float, _total: float) -> None:
    """Progress is told on the leader."""
