"""Runs calibration batches through a model and brings the accumulators home."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.collect.hooks import HookPoint, attached, find_modules
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import token_batches
from prunebridge_shim.tensors import Batch, HostTensor, Tick


@dataclass
class Collected:
    """What was measured over what.

    Attributes:
        sums: The accumulators by key, F32 [C], [E, C], [E] or [].
        batches: Batches that were run.
        samples: Sequences in them.
        tokens: Tokens in them.
        forward_seconds: Wall time within forward passes.
    """

    sums: dict[str, HostTensor]
    batches: int = 0
    samples: int = 0
    tokens: int = 0
    forward_seconds: float = 0.0


@torch.no_grad()
def collect(model: Any, points: Sequence[HookPoint], feed: Iterable[Batch], tick: Tick) -> Collected:
    """Runs the model over a feed's batches with hooks that accumulate in float32.

    Raises:
        ShimError: UNKNOWN_MODULE for a hook point that the model lacks or never runs, BAD_DATA for a batch that does
            not fit the model, BAD_TENSOR for an activation that is not [batch, sequence, channel]
            or those flattened.
    """
    modules = find_modules(model, points)
    runner = _smallest_runner(model, modules)
    done = Collected({})
    with attached(points, modules, model.get_input_embeddings()) as sums:
        for ids in token_batches(feed, model):
            tick(done.batches, 0)
            began = time.perf_counter()
            runner(input_ids=ids, use_cache=False)
            done.forward_seconds += time.perf_counter() - began
            done.batches += 1
            done.samples += ids.shape[0]
            done.tokens += ids.numel()
    began = time.perf_counter()
    done.sums = _bring_home(points, sums)
    done.forward_seconds += time.perf_counter() - began  # a GPU's work is awaited here
    return done


def _smallest_runner(model: Any, modules: Sequence[nn.Module]) -> nn.Module:
    """The decoder without its output layer where all hooks sit inside of it: nobody reads the logits."""
    decoder: nn.Module = model.base_model
    inside = set(decoder.modules())
    return decoder if all(module in inside for module in modules) else model


def _bring_home(points: Sequence[HookPoint], sums: Mapping[str, torch.Tensor]) -> dict[str, HostTensor]:
    for point in points:
        if point.key not in sums:
            raise ShimError(Reason.UNKNOWN_MODULE, f"hook {point.key}: the model never runs its module {point.module}")
    if not points:
        return {}
    sizes = [sums[point.key].numel() for point in points]
    flat = torch.cat([sums[point.key].flatten() for point in points]).cpu()
    return {
        point.key: HostTensor("F32", part.reshape(sums[point.key].shape).numpy())
        for point, part in zip(points, flat.split(sizes), strict=True)
    }
