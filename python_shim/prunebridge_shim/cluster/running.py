"""Runs batches, which the leader has, on all ranks in rounds. B: batch, S: sequence."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.cluster.exchange import AgreedError
from prunebridge_shim.cluster.forward import ArgumentsOf, inputs_of, run_micro_batches
from prunebridge_shim.cluster.measures import MicroBatch
from prunebridge_shim.cluster.rank import Rank
from prunebridge_shim.cluster.spread import TokenIds, rounds
from prunebridge_shim.errors import Reason, ShimError

Run = Callable[[MicroBatch, nn.Module, dict[str, torch.Tensor]], Any]
"""Runs a micro-batch on a chunk of the model with its arguments."""


@dataclass(frozen=True)
class Round:
    """Batches of one shape that run together.

    Attributes:
        batches: As many as every rank needs to run as many micro-batches as every other.
        counted: How many of them were given; those behind are repeated, and not measured.
    """

    batches: list[TokenIds]
    counted: int


def run_rounds(
    rank: Rank, batches: Iterable[TokenIds], run: Run, told: Callable[[], None], arguments_of: ArgumentsOf = inputs_of
) -> Iterator[Round]:
    """Runs all batches. Every rank has to call it.

    Args:
        rank: This rank.
        batches: What the leader has; nothing on others.
        run: Runs a micro-batch.
        told: Called on the leader, before each batch is taken and after each round.
        arguments_of: Makes the arguments of what is run.

    Yields:
        Each round, when this rank has run it.

    Raises:
        AgreedError: On all ranks, for what is raised by the batches, or where the leader is told.
    """
    source = rounds(_telling(batches, told), rank.round_size, rank.round_multiple)
    while True:
        taken, failure = rank.exchange.share(_next(source, told) if rank.leads else None)
        if failure is not None:
            raise AgreedError(*failure)
        if taken is None:
            return
        _run_round(rank, taken, run, arguments_of)
        yield taken


def _telling(batches: Iterable[TokenIds], told: Callable[[], None]) -> Iterator[TokenIds]:
    for batch in batches:
        told()
        yield batch


def _next(
    source: Iterator[tuple[list[TokenIds], int]], told: Callable[[], None]
) -> tuple[Round | None, tuple[Reason, str, str] | None]:
    try:
        told()
        taken = next(source, None)
    except ShimError as error:
        return None, (error.reason, error.message, error.hint)
    return taken and Round(*taken), None


def _run_round(rank: Rank, taken: Round, run: Run, arguments_of: ArgumentsOf) -> None:
    share = rank.share
    mine = share.mine(taken.batches)
    rows, length = taken.batches[0].shape

    def step(number: int, chunk: nn.Module, arguments: dict[str, torch.Tensor]) -> Any:
        counts = number * share.teams + share.team < taken.counted
        micro_batch = MicroBatch(len(mine[0]), length, share.repeats(rows), share.members, counts)
        return run(micro_batch, chunk, arguments)

    run_micro_batches(rank.model, mine, step, arguments_of)
