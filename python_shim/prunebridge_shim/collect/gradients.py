"""Sums the squared gradients of masks over batches."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from prunebridge_shim.collect.hooks import batch_shape
from prunebridge_shim.collect.masks import Mask, MaskSums, Root, masked
from prunebridge_shim.collect.places import find_places
from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.models.losses import Example
from prunebridge_shim.models.undisturbed import undisturbed
from prunebridge_shim.tensors import HostTensor, Tick


@dataclass(frozen=True)
class Descent:
    """Where backward begins.

    Attributes:
        loss: A number.
        roots: The loss itself, with None; or what the model returned, with the gradients of a loss taken elsewhere.
    """

    loss: torch.Tensor
    roots: Sequence[Root]


@dataclass(frozen=True)
class Step:
    """A batch: how the model is run on it, and how what that returns is judged."""

    example: Example
    run: Callable[[], Any]
    judge: Callable[[Any], Descent]


@dataclass
class Gradients:
    """What was summed over what.

    Attributes:
        sums: Squared gradients by mask, F32 [units].
        batches: Batches that were run.
        samples: Sequences in them.
        tokens: Tokens in them.
        pass_seconds: Wall time within forward passes, losses and backward passes.
        summed_loss: The batches' losses.
    """

    sums: Mapping[str, HostTensor] = field(default_factory=dict)
    batches: int = 0
    samples: int = 0
    tokens: int = 0
    pass_seconds: float = 0.0
    summed_loss: float = 0.0

    @property
    def loss(self) -> float:
        """The mean of the batches' losses."""
        return self.summed_loss / self.batches

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time that the context lasts."""
        began = time.perf_counter()
        yield
        self.pass_seconds += time.perf_counter() - began


def collect_gradients(model: Any, masks: Sequence[Mask], steps: Iterable[Step], tick: Tick) -> Gradients:
    """Runs a model forward and backward over batches, in eval mode; only masks have gradients, in float32.

    The model is left bit for bit as it was.

    Raises:
        ShimError: UNKNOWN_MODULE for a mask on a module that the model lacks or never runs, BAD_TENSOR for one that
            does not divide its axis, BAD_DATA for a batch that does not fit the model and for a loss or a gradient that
            is not finite, INVALID_REQUEST for a model in float16 or no mask at all; CANCELLED at a batch.
    """
    _check(model, masks)
    modules = find_places(model, masks, "mask")
    done = Gradients()
    with undisturbed(model), masked(masks, modules, model.device) as sums, torch.enable_grad():
        model.requires_grad_(False)
        for step in steps:
            tick(done.batches, 0)
            with done.timed():
                done.summed_loss += _run(sums, step)
            done.batches += 1
            samples, length = batch_shape((), step.example.inputs)
            done.samples += samples
            done.tokens += samples * length
        if not done.batches:
            raise ShimError(Reason.BAD_DATA, "the data ended before its first batch", "send at least one batch")
        sums.check_ran()
        done.sums = sums.bring_home()
    return done


def _check(model: Any, masks: Sequence[Mask]) -> None:
    if not masks:
        raise ShimError(Reason.INVALID_REQUEST, "there is no mask to take gradients of", "name at least one")
    for mask in masks:
        if mask.units < 1:
            raise ShimError(Reason.INVALID_REQUEST, f"mask {mask.key} has {mask.units} units; it needs at least one")
    if model.dtype == torch.float16:
        raise ShimError(
            Reason.INVALID_REQUEST,
            "the model is in float16, whose range gradients leave in silence",
            "open it in bfloat16 or float32",
        )


def _run(sums: MaskSums, step: Step) -> float:
    """Gives the loss of a batch, whose gradients are added."""
    number = step.example.number
    descent = step.judge(step.run())
    if not any(output.requires_grad for output, _ in descent.roots):
        sums.check_ran()
        raise ShimError(
            Reason.BAD_DATA,
            f"the loss of batch {number} depends on no mask: no graph leads from it to one",
            "compute it from the model's output, without detach() or no_grad()",
        )
    try:
        sums.add(descent.roots)
    except RuntimeError as error:
        # Of a loss that ran backward itself, or changed in place what backward needs, for two.
        if is_out_of_memory(error):
            raise
        raise ShimError(Reason.BAD_DATA, f"backward from the loss of batch {number} failed: {error}") from error
    loss, infinite = descent.loss.item(), sums.find_infinite()
    if not math.isfinite(loss):
        raise ShimError(Reason.BAD_DATA, f"the loss of batch {number} is {loss}", "look at that batch")
    if infinite:
        raise ShimError(
            Reason.BAD_DATA,
            f"the gradient of batch {number} at the {infinite.side} of {infinite.module} is not finite",
            "look at that batch, or open the model in float32",
        )
    return loss
