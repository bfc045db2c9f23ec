"""Mean next-token cross entropy. B: batch, S: sequence, V: vocabulary."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import INPUT_IDS, model_inputs
from prunebridge_shim.models.calling import call
from prunebridge_shim.models.outputs import logits_of
from prunebridge_shim.tensors import Ask, Tick

CHUNK_ELEMENTS = 1 << 24
"""Logits turned to float32 at a time: 64 MiB, where a whole batch's would double the memory of its logits."""


@torch.no_grad()
def evaluate_loss(model: Any, feed: Iterable[Ask], tick: Tick) -> tuple[float, int]:
    """Runs the model over all batches.

    Returns:
        The loss in nats per token, computed in float32, and the tokens that were predicted.

    Raises:
        ShimError: BAD_DATA where a batch does not fit the model, or no sequence has a second token; INVALID_REQUEST
            for a batch that asks for something of its own.
    """
    total, tokens = 0.0, 0
    for index, (ask, inputs) in enumerate(model_inputs(feed, model)):
        tick(index, 0)
        if ask.returns != "nothing":
            raise ShimError(
                Reason.INVALID_REQUEST, f"batch {index} asks for {ask.returns}; one loss of all batches is what comes"
            )
        ids_BS = inputs[INPUT_IDS]
        logits_BSV = logits_of(call(model, inputs))
        total += summed_cross_entropy(logits_BSV[:, :-1], ids_BS[:, 1:])
        tokens += ids_BS[:, 1:].numel()
    if tokens == 0:
        raise _no_second_token()
    return total / tokens, tokens


def mean_cross_entropy(logits_BSV: torch.Tensor, ids_BS: torch.Tensor) -> torch.Tensor:
    """The loss of one batch, F64 []; raises BAD_DATA where its sequences have no second token."""
    tokens = ids_BS[:, 1:].numel()
    if tokens == 0:
        raise _no_second_token()
    return torch.tensor(summed_cross_entropy(logits_BSV[:, :-1], ids_BS[:, 1:]) / tokens, dtype=torch.float64)


def summed_cross_entropy(logits_BSV: torch.Tensor, targets_BS: torch.Tensor) -> float:
    """The sum over all tokens of the negative log-likelihood, in float32 chunk by chunk."""
    rows = max(1, CHUNK_ELEMENTS // logits_BSV.shape[-1])
    total = torch.zeros((), dtype=torch.float64)
    for logits_SV, targets_S in zip(logits_BSV, targets_BS, strict=True):
        for logits, targets in zip(logits_SV.split(rows), targets_S.split(rows), strict=True):
            total += F.cross_entropy(logits.float(), targets.to(logits.device), reduction="sum").double().cpu()
    return float(total)


def _no_second_token() -> ShimError:
    return ShimError(
        Reason.BAD_DATA, "no sequence has a second token to predict", "send sequences of at least 2 tokens"
    )
