"""Measures within modules that run experts. T: tokens of a batch, K: experts of a token, E: experts, C: channels.

Such a module is one fused step, into which no hook sees. While it is measured, another forward stands in for its own,
which computes the same expert by expert and measures on the way.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention
from torch import nn

from prunebridge_shim.collect.reductions import mean_abs_square
from prunebridge_shim.errors import Reason, ShimError

Routed = Literal["routed_mean_abs_square", "routed_output_norm", "routed_tokens"]
ROUTED: tuple[Routed, ...] = get_args(Routed)

ATTRIBUTES = ("num_experts", "has_gate", "has_bias", "is_transposed", "down_proj")
"""What transformers gives each of its modules that run packed experts."""


def check_runs_experts(module: nn.Module, path: str) -> None:
    """Raises INVALID_REQUEST for a module that runs no packed experts, or that norms what each of them gives."""
    if not all(hasattr(module, name) for name in ATTRIBUTES) or getattr(module, "has_post_expert_norm", False):
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{path} is {type(module).__name__}, within which routed reductions cannot be taken",
            "they go to a module that runs packed experts, which transformers calls `experts`",
        )


@contextmanager
def measured_experts(
    experts: Any, wanted: Collection[Routed], add: Callable[[Routed, torch.Tensor], None]
) -> Iterator[None]:
    """Has a module measure what is wanted whenever it runs, for as long as the context lasts.

    Args:
        experts: A module that `check_runs_experts` takes.
        wanted: What to measure.
        add: Told of what each run sums up, in float32: [E, C], or [E].
    """

    def forward(hidden_TC: torch.Tensor, index_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        output_TC, sums = _run(experts, hidden_TC, index_TK, weights_TK, wanted)
        for measure in wanted:
            add(measure, sums[measure])
        return output_TC

    experts.forward = forward
    try:
        yield
    finally:
        del experts.forward


def _run(
    experts: Any,
    hidden_TC: torch.Tensor,
    index_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    wanted: Collection[Routed],
) -> tuple[torch.Tensor, dict[Routed, torch.Tensor]]:
    order, bounds = _sort_by_expert(index_TK, experts.num_experts)
    width = experts.down_proj.shape[1 if experts.is_transposed else 2]
    activation_EC = torch.zeros(experts.num_experts, width, device=hidden_TC.device)
    norm_E = torch.zeros(experts.num_experts, device=hidden_TC.device)
    dtype = torch.promote_types(hidden_TC.dtype, weights_TK.dtype)
    total_TC = torch.zeros_like(hidden_TC, dtype=dtype)
    # The one place where the device is waited for.
    for expert, (begin, end) in enumerate(pairwise(bounds.tolist())):
        if begin == end:
            continue
        picked = order[begin:end]
        tokens, weights_T1 = picked // index_TK.shape[1], weights_TK.flatten()[picked, None]
        inner_TC = _activate(experts, _project(experts, _up_name(experts), expert, hidden_TC[tokens]))
        if "routed_mean_abs_square" in wanted:
            # Megatron-Core weights the activation in its own dtype, before the down projection.
            activation_EC[expert] = mean_abs_square((inner_TC * weights_T1.to(inner_TC.dtype))[None])
        outer_TC = _project(experts, "down_proj", expert, inner_TC) * weights_T1
        if "routed_output_norm" in wanted:
            norm_E[expert] = torch.linalg.vector_norm(outer_TC, dim=-1, dtype=torch.float32).sum()
        total_TC.index_add_(0, tokens, outer_TC)
    return total_TC.to(hidden_TC.dtype), {
        "routed_mean_abs_square": activation_EC,
        "routed_output_norm": norm_E,
        "routed_tokens": bounds.diff().float(),
    }


def _sort_by_expert(index_TK: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Orders the pairs of token and expert by expert; gives the order, and where each expert's begin and the last ends.

    Pairs of experts that are none, as some routers mark those that run elsewhere, come behind.
    """
    sorted_ids, order = index_TK.flatten().sort(stable=True)
    edges = torch.arange(experts + 1, device=index_TK.device, dtype=sorted_ids.dtype)
    return order, torch.searchsorted(sorted_ids, edges)


def _up_name(experts: Any) -> str:
    return "gate_up_proj" if experts.has_gate else "up_proj"


def _project(experts: Any, name: str, expert: int, x_TC: torch.Tensor) -> torch.Tensor:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return F.linear(x_TC, weight.T if experts.is_transposed else weight, bias)


def _activate(experts: Any, x_TC: torch.Tensor) -> torch.Tensor:
    activated: torch.Tensor = experts._apply_gate(x_TC) if experts.has_gate else experts.act_fn(x_TC)  # noqa: SLF001
    return activated
