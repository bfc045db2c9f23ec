"""Runs a model on batches and gives what they ask for. B: batch, S: sequence, V: vocabulary."""

from collections.abc import Iterable
from typing import Any

import torch

from prunebridge_shim.models.batches import INPUT_IDS, Inputs, model_inputs
from prunebridge_shim.models.calling import call
from prunebridge_shim.models.loss import mean_cross_entropy
from prunebridge_shim.models.outputs import floating_tensors, logits_of, to_host
from prunebridge_shim.tensors import Ask, Batch, Returns, Tick


@torch.no_grad()
def forward(model: Any, feed: Iterable[Ask], tick: Tick) -> int:
    """Runs the model on each batch and answers it; gives the number of batches.

    Raises:
        ShimError: BAD_DATA for a batch that does not fit the model.
    """
    done = 0
    for ask, inputs in model_inputs(feed, model):
        tick(done, 0)
        answer = run(model, inputs, ask.returns)
        if ask.returns != "nothing":
            ask.answer(answer)
        done += 1
    return done


def run(model: Any, inputs: Inputs, returns: Returns) -> Batch:
    """Runs a model on a batch; gives F64 `loss` [], F32 `logits` [B, V] or [B, S, V], all that it returns, or nothing.

    Raises:
        ShimError: BAD_DATA for a batch that the model cannot run, or the loss of sequences without a second token.
    """
    returned = call(model, inputs)
    if returns == "nothing":
        return {}
    if returns == "output":
        return floating_tensors(returned)
    logits_BSV = logits_of(returned)
    if returns == "loss":
        return {"loss": to_host("F64", mean_cross_entropy(logits_BSV, inputs[INPUT_IDS]))}
    picked = logits_BSV[:, -1] if returns == "last_logits" else logits_BSV
    return {"logits": to_host("F32", picked.float())}
