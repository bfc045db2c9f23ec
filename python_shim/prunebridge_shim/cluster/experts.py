"""Measures within the modules that run one rank's experts. T: tokens of an expert, E: experts held here, C: channels.

A sample of an expert is the tokens of one batch that are routed to it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist

from prunebridge_shim.collect.experts import Routed
from prunebridge_shim.collect.reductions import sum_abs

Sums = Mapping[Routed, torch.Tensor]
"""Sums over the tokens of a micro-batch in float32: [E, C] of |x|, [E] of norms, [E] of ones."""


@contextmanager
def measured_experts(experts: Any, channel_group: dist.ProcessGroup, take: Callable[[Sums], None]) -> Iterator[None]:
    """Has a module measure whenever it runs, for as long as the context lasts.

    Args:
        experts: A SequentialMLP or a TEGroupedMLP, which are called with tokens sorted by expert, how many each
            has, and the router's weights.
        channel_group: The ranks that share the channels of these experts out.
        take: Told of what each run sums up.
    """
    run = _Run(experts, channel_group, take)
    with ExitStack() as stack:
        for handle in run.attach():
            stack.callback(handle.remove)
        yield


class _Run:
    def __init__(self, experts: Any, channel_group: dist.ProcessGroup, take: Callable[[Sums], None]) -> None:
        self._experts = experts
        self._channel_group = channel_group
        self._take = take
        self._sums_C: list[torch.Tensor] = []

    def attach(self) -> list[Any]:
        # In a SequentialMLP each expert has a projection of its own.
        each = getattr(self._experts, "local_experts", None)
        projections = [self._experts.linear_fc2] if each is None else [expert.linear_fc2 for expert in each]
        return [
            *(projection.register_forward_pre_hook(self._see_activation) for projection in projections),
            self._experts.register_forward_hook(self._end),
        ]

    def _see_activation(self, _module: Any, args: tuple[Any, ...]) -> None:
        x_TC, *splits = args
        parts = x_TC.split(splits[0]) if splits else (x_TC,)
        self._sums_C.extend(sum_abs(part[None])[0] for part in parts)

    def _end(self, _module: Any, args: tuple[Any, ...], output: Any) -> None:
        output_TC = output[0]
        tokens_E: torch.Tensor = args[1]
        if self._channel_group.size() > 1:
            # Each rank's output is a sum over its own channels.
            output_TC = output_TC.clone()
            dist.all_reduce(output_TC, group=self._channel_group)
        norm_T = torch.linalg.vector_norm(output_TC, dim=-1, dtype=torch.float32)
        norms = [part.sum() for part in norm_T.split(tokens_E.tolist())]
        sums, self._sums_C = self._sums_C, []
        self._take(
            {
                "routed_mean_abs_square": torch.stack(sums),
                "routed_output_norm": torch.stack(norms),
                "routed_tokens": tokens_E.to(output_TC.device, torch.float32, non_blocking=True),
            }
        )


def routed_means(total_EC: torch.Tensor, tokens_E1: torch.Tensor) -> torch.Tensor:
    """Squares the means over tokens, zero for an expert without any; [E, C]."""
    return (total_EC / tokens_E1.clamp(min=1)).square_()
