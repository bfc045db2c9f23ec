"""Runs calibration batches through a model and brings the accumulators home."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.collect.hooks import HookPoint, attached, find_modules
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import INPUT_IDS, argument_names, model_inputs
from prunebridge_shim.models.calling import call
from prunebridge_shim.models.forward import run
from prunebridge_shim.tensors import Ask, HostTensor, Tick


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

    def count(self, samples: int, length: int) -> None:
        """Adds a batch of as many sequences of as many tokens."""
        self.batches += 1
        self.samples += samples
        self.tokens += samples * length

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time that the context lasts."""
        began = time.perf_counter()
        yield
        self.forward_seconds += time.perf_counter() - began


@torch.no_grad()
def collect(model: Any, points: Sequence[HookPoint], feed: Iterable[Ask], tick: Tick) -> Collected:
    """Runs the model over a feed's batches with hooks that accumulate in float32, and answers those that ask.

    Raises:
        ShimError: UNKNOWN_MODULE for a hook point that the model lacks or never runs, BAD_DATA for a batch that does
            not fit the model, BAD_TENSOR for an activation that is not [batch, sequence, channel]
            or those flattened.
    """
    modules = find_modules(model, points)
    done = Collected({})
    with attached(points, modules, model.base_model) as sums:
        for ask, inputs in model_inputs(feed, model):
            tick(done.batches, 0)
            with done.timed():
                if ask.returns == "nothing":
                    answer = None
                    call(smallest_runner(model, modules, inputs), inputs)
                else:
                    answer = run(model, inputs, ask.returns)
            if answer is not None:
                ask.answer(answer)
            done.count(*inputs[INPUT_IDS].shape)
    with done.timed():  # a GPU's work is awaited here
        done.sums = bring_home(points, sums)
    return done


def smallest_runner(model: Any, modules: Sequence[nn.Module], arguments: Iterable[str]) -> nn.Module:
    """The decoder without its output layer where all hooks sit inside of it and it takes all arguments.

    Nobody reads the logits then.
    """
    decoder: nn.Module = model.base_model
    inside = set(decoder.modules())
    enough = all(module in inside for module in modules) and set(arguments) <= set(argument_names(decoder))
    return decoder if enough else model


def bring_home(points: Sequence[HookPoint], sums: Mapping[str, torch.Tensor]) -> dict[str, HostTensor]:
    """Fetches the accumulators in one copy; raises UNKNOWN_MODULE for a module that never ran."""
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
