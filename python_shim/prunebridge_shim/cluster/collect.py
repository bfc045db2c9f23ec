"""Measures the job's model on all ranks."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from prunebridge_shim.cluster.assemble import add_up, assemble, pieces_of
from prunebridge_shim.cluster.exchange import AgreedError
from prunebridge_shim.cluster.feeding import token_ids
from prunebridge_shim.cluster.forward import as_a_guest, without_output_layer
from prunebridge_shim.cluster.hooks import Hooks
from prunebridge_shim.cluster.measures import MicroBatch
from prunebridge_shim.cluster.points import Held, hold, nearest_names
from prunebridge_shim.cluster.rank import Rank
from prunebridge_shim.cluster.running import run_rounds
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import Collected
from prunebridge_shim.errors import Reason
from prunebridge_shim.tensors import Ask, Tick


def collect(rank: Rank, points: Sequence[HookPoint], feed: Iterable[Ask], tick: Tick) -> Collected:
    """Runs the model over a feed's batches with hooks that accumulate in float32. Every rank has to call it.

    Args:
        rank: This rank.
        points: What to measure, with the names that modules have where one rank holds the whole model.
        feed: Batches on the leader, nothing on others.
        tick: Hears of progress on the leader; it may raise there.

    Returns:
        What was measured over what, on the leader; nothing on others.

    Raises:
        AgreedError: On all ranks: UNKNOWN_MODULE for a point that no rank holds or that never runs, INVALID_REQUEST for
            a measure that cannot be taken, BAD_DATA for a batch that does not fit, BAD_TENSOR for an activation of
            another shape than expected, CANCELLED.
    """
    held = _find(rank, points)
    hooks = Hooks(rank.groups, rank.copies)
    done = Collected({})

    def run(micro_batch: MicroBatch, chunk: nn.Module, arguments: dict[str, torch.Tensor]) -> Any:
        hooks.running = micro_batch
        with done.timed():
            return chunk(**arguments, attention_mask=None)

    def told() -> None:
        tick(done.batches, 0)

    with ExitStack() as stack:
        stack.enter_context(as_a_guest(rank.model))
        stack.enter_context(hooks.attached(held, rank.model.chunks))
        if all(point.module.startswith("decoder.") for point in points):
            stack.enter_context(without_output_layer(rank.model))
        for taken in run_rounds(rank, token_ids(feed, rank), run, told):
            rank.exchange.agree(hooks.failure)
            for batch in taken.batches[: taken.counted]:
                done.count(*batch.shape)
    with done.timed():  # a GPU's work is awaited here
        values = add_up(held, hooks.measures.sums)
    pieces = rank.exchange.gather(pieces_of(held, values, rank.layout))
    done.sums = assemble(piece for brought in pieces for piece in brought)
    if rank.leads:
        _check_all_ran(points, done)
    return done


def _find(rank: Rank, points: Sequence[HookPoint]) -> list[Held]:
    held = rank.exchange.attempt(lambda: hold(points, rank.model.modules, rank.layout))
    found = {one.point.key for one in held}
    known: set[str] = set().union(*rank.exchange.gather_everywhere(found))
    for point in points:
        if point.key not in known:
            near = rank.exchange.gather_everywhere(nearest_names(point, rank.model.modules))
            nearest = nearest_names(point, {name for names in near for name in names})
            message = f"hook {point.key}: no rank has a module {point.module!r}"
            raise AgreedError(Reason.UNKNOWN_MODULE, message, f"nearest are {', '.join(nearest)}" if nearest else "")
    return held


def _check_all_ran(points: Sequence[HookPoint], done: Collected) -> None:
    for point in points:
        if point.key not in done.sums:
            raise AgreedError(
                Reason.UNKNOWN_MODULE, f"hook {point.key}: the model never runs its module {point.module}"
            )
    done.sums = {point.key: done.sums[point.key] for point in points}
