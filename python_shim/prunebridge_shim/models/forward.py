"""Logits of whole batches."""

from collections.abc import Iterable
from typing import Any

import torch

from prunebridge_shim.models.batches import token_batches
from prunebridge_shim.tensors import Batch, HostTensor, Tick


@torch.no_grad()
def forward(model: Any, feed: Iterable[Batch], tick: Tick) -> dict[str, HostTensor]:
    """Runs the model on each batch; gives `logits.N`, F32 [B, S, vocab], for batch N."""
    logits = {}
    for index, ids in enumerate(token_batches(feed, model)):
        tick(index, 0)
        output = model(input_ids=ids, use_cache=False).logits
        logits[f"logits.{index}"] = HostTensor("F32", output.float().cpu().contiguous().numpy())
    return logits
