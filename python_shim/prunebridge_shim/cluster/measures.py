"""What hooks on one rank's modules add up. S: sequence, B: batch, C: channels, E: experts.

A mean over tokens is squared, so that ranks which share the tokens of a sample out add their sums up before: once for
each micro-batch, all measures together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

Finish = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Makes of a sum over all tokens of a sample, and of their number, what is added up over samples."""


@dataclass(frozen=True)
class TokenGroups:
    """The ranks over which a sample is shared out.

    Attributes:
        context: Those that share a sequence out by context parallelism.
        sequence: Those that share it out by sequence parallelism as well.
        expert: Those that hold the same part of the same experts, of those that run one batch; nothing where one does.
        expert_channels: Those that share the channels of experts out.
    """

    context: dist.ProcessGroup
    sequence: dist.ProcessGroup
    expert: dist.ProcessGroup | None
    expert_channels: dist.ProcessGroup


@dataclass(frozen=True)
class MicroBatch:
    """What runs.

    Attributes:
        rows: Its sequences.
        length: Their tokens, over all ranks.
        repeats: How many data parallel ranks run the same sequences of the batch.
        members: How many data parallel ranks run sequences of it.
        counts: Whether it is measured.
    """

    rows: int
    length: int
    repeats: int
    members: int
    counts: bool


@dataclass(frozen=True)
class Sum:
    """A sum over this rank's tokens of a micro-batch.

    Attributes:
        key: The accumulator that it is of.
        total: The sum.
        tokens: How many tokens there were, in a shape that broadcasts.
        finish: What is made of both.
    """

    key: str
    total: torch.Tensor
    tokens: torch.Tensor
    finish: Finish


class Measures:
    """The accumulators of one rank, by key."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self._pending: dict[dist.ProcessGroup | None, list[Sum]] = {}

    def add(self, one: Sum, group: dist.ProcessGroup | None) -> None:
        """Takes a sum, whose sample's tokens lie on the ranks of a group."""
        self._pending.setdefault(group, []).append(one)

    def end_micro_batch(self, counts: bool) -> None:
        """Adds up what was taken since the last micro-batch, unless that one does not count."""
        for group, taken in self._pending.items():
            self._end(group, taken, counts)
        self._pending = {}

    def _end(self, group: dist.ProcessGroup | None, taken: list[Sum], counts: bool) -> None:
        parts = [part for one in taken for part in (one.total, one.tokens)]
        if group is not None and group.size() > 1:
            flat = torch.cat([part.flatten() for part in parts])
            dist.all_reduce(flat, group=group)
            sizes = [part.numel() for part in parts]
            parts = [new.reshape(old.shape) for old, new in zip(parts, flat.split(sizes), strict=True)]
        for one, total, tokens in zip(taken, parts[::2], parts[1::2], strict=True):
            value = one.finish(total, tokens) if counts else torch.zeros_like(one.finish(total, tokens))
            self.sums[one.key] = self.sums[one.key] + value if one.key in self.sums else value


def squared_means(total_BC: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Sums the squares of means over samples; [C]."""
    return (total_BC / tokens).square_().sum(0)
