"""Batches of a feed as steps of a collection of gradients, each judged here or by the client."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch

from prunebridge_shim.collect.gradients import Descent, Step
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import argument_names, inputs_of, to_torch
from prunebridge_shim.models.calling import call
from prunebridge_shim.models.losses import LABELS, Example
from prunebridge_shim.models.outputs import floating_tensors, named_tensors
from prunebridge_shim.tensors import Ask, Batch, HostTensor

LOSS = "loss"
GRADIENT = "gradient."
"""What the client's loss and its gradients by an output's tensors are called."""

Judge = Callable[[Any, Example], torch.Tensor]
"""Gives the loss of what the model returned for an example: a tensor of one element with a graph."""


def feed_steps(model: Any, feed: Iterable[Ask], judge: Judge, *, with_labels: bool) -> Iterator[Step]:
    """Batches that are judged here. `labels` are no argument of forward but `with_labels`, where it takes them.

    Raises:
        ShimError: BAD_DATA for a batch that does not fit the model, INVALID_REQUEST for one that asks for something.
    """
    for number, ask in enumerate(feed):
        if ask.returns != "nothing":
            raise ShimError(
                Reason.INVALID_REQUEST, f"batch {number} asks for {ask.returns}; sums of all batches are what comes"
            )
        example = _example_of(model, ask.batch, number, with_labels=with_labels)
        yield Step(example, partial(call, model, example.inputs), partial(judged, judge, example))


def judged(judge: Judge, example: Example, returned: Any) -> Descent:
    """Where backward begins once what the model returned was judged here."""
    loss = judge(returned, example)
    return Descent(loss, [(loss, None)])


def client_steps(model: Any, feed: Iterable[Ask]) -> Iterator[Step]:
    """Batches whose loss the client takes: each asks for its output, and a batch with the loss follows.

    Raises:
        ShimError: BAD_DATA for a batch that does not fit the model, INVALID_REQUEST for one out of turn.
    """
    asks = iter(feed)
    for number, ask in enumerate(asks):
        if ask.returns != "output":
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"batch {number} asks for {ask.returns} where its output is due",
                "ask for RETURNS_OUTPUT, and send a batch with the loss after the answer",
            )
        example = _example_of(model, ask.batch, number, with_labels=False)
        yield Step(example, partial(call, model, example.inputs), partial(_ask_client, number, ask, asks))


def _example_of(model: Any, batch: Batch, number: int, *, with_labels: bool) -> Example:
    inputs = inputs_of({name: tensor for name, tensor in batch.items() if name != LABELS}, number, model)
    if LABELS not in batch:
        return Example(number, inputs, None, inputs)
    labels = to_torch(batch[LABELS]).to(model.device)
    everything = {**inputs, LABELS: labels}
    is_taken = with_labels and LABELS in argument_names(model)
    return Example(number, everything if is_taken else inputs, labels, everything)


def _ask_client(number: int, ask: Ask, asks: Iterator[Ask], returned: Any) -> Descent:
    ask.answer(floating_tensors(returned))
    reply = next(asks, None)
    if reply is None or reply.returns != "nothing":
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"the output of batch {number} is not followed by its loss",
            f"send a batch with F64 {LOSS} [] and {GRADIENT}<name> once the output was answered",
        )
    outputs = named_tensors(returned)
    loss = _loss_in(reply.batch, number)
    roots = [
        (outputs[name], _gradient_in(reply.batch, name, outputs[name], number))
        for name in _names_in(reply.batch, outputs, number)
    ]
    return Descent(loss, roots)


def _loss_in(batch: Batch, number: int) -> torch.Tensor:
    loss = batch.get(LOSS)
    if loss is None or loss.dtype != "F64" or loss.shape:
        raise _bad_reply(number, f"holds {_described(loss)} where F64 [] {LOSS} belongs")
    return to_torch(loss)


def _names_in(batch: Batch, outputs: dict[str, torch.Tensor], number: int) -> list[str]:
    names = [name.removeprefix(GRADIENT) for name in batch if name.startswith(GRADIENT)]
    strange = [name for name in batch if name != LOSS and name.removeprefix(GRADIENT) not in outputs]
    if strange or not names:
        due = ", ".join(f"{GRADIENT}{name}" for name in outputs)
        raise _bad_reply(number, f"holds {strange[0] if strange else 'no gradient'}; it takes {due}")
    return names


def _gradient_in(batch: Batch, name: str, output: torch.Tensor, number: int) -> torch.Tensor:
    given = batch[f"{GRADIENT}{name}"]
    if given.dtype != "F32" or given.shape != tuple(output.shape):
        raise _bad_reply(number, f"holds {GRADIENT}{name} {given}; the output {name} is F32 {list(output.shape)}")
    gradient = to_torch(given)
    if not gradient.isfinite().all():
        raise ShimError(Reason.BAD_DATA, f"the client's gradient of {name} of batch {number} is not finite")
    return gradient.to(output.device, output.dtype)


def _described(tensor: HostTensor | None) -> str:
    return "nothing" if tensor is None else str(tensor)


def _bad_reply(number: int, what: str) -> ShimError:
    return ShimError(Reason.INVALID_REQUEST, f"the loss of batch {number} {what}")
