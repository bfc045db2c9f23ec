"""Work on gradients of masks, with batches from a feed or from Python, and losses from all sides. Imports torch."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch

from prunebridge_shim.collect.gradients import Gradients, Step, collect_gradients
from prunebridge_shim.collect.masks import Mask
from prunebridge_shim.collect.steps import Judge, client_steps, feed_steps, judged
from prunebridge_shim.entry_points import EntryPoints, blaming
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.models.arguments import bind_arguments, split_arguments
from prunebridge_shim.models.batches import argument_names
from prunebridge_shim.models.losses import LABELS, BuiltIn, Example, built_in_loss
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.python_batches import PythonBatches
from prunebridge_shim.rpc.requests import brings_batches
from prunebridge_shim.tensors import Tick

SIDES: Mapping[int, Literal["input", "output"]] = {
    work_pb2.HOOK_SIDE_INPUT: "input",
    work_pb2.HOOK_SIDE_OUTPUT: "output",
}
BUILT_IN: Mapping[int, BuiltIn] = {
    work_pb2.BUILT_IN_LOSS_CAUSAL_LM: "causal_lm",
    work_pb2.BUILT_IN_LOSS_MASKED_LM: "masked_lm",
    work_pb2.BUILT_IN_LOSS_SEQUENCE_CLASSIFICATION: "sequence_classification",
    work_pb2.BUILT_IN_LOSS_MSE: "mse",
}


def collect_gradients_by(
    model: Any, work: work_pb2.CollectGradients, feed: Callable[[], Feed], entry_points: EntryPoints, tick: Tick
) -> Gradients:
    """Does what a request asks for; `feed` gives the feed of one whose batches do not come from Python.

    Raises:
        ShimError: INVALID_REQUEST for a request that contradicts itself, PYTHON_DENIED, PYTHON_FAILED, FEED_LOST, or
            as `collect_gradients` does.
    """
    masks = [Mask(mask.key, mask.module, _side_of(mask), mask.units) for mask in work.masks]
    if work.client:
        if brings_batches(work):
            raise ShimError(
                Reason.INVALID_REQUEST,
                "Python brings the batches, of which the client cannot take the loss",
                "name a loss_func, or send the batches",
            )
        return collect_gradients(model, masks, client_steps(model, feed()), tick)
    judge = _judge_of(work, entry_points)
    by_python = work.WhichOneof("loss") == "loss_func"
    if not brings_batches(work):
        return collect_gradients(model, masks, feed_steps(model, feed(), judge, with_labels=by_python), tick)
    batches = PythonBatches(work.data, entry_points)
    steps = _python_steps(model, batches, judge, with_labels=by_python)
    return collect_gradients(model, masks, steps, lambda done, _total: tick(done, batches.total))


def _python_steps(model: Any, batches: PythonBatches, judge: Judge, *, with_labels: bool) -> Iterator[Step]:
    """As `feed_steps`, over batches of Python; what the model cannot run is of their making."""
    for number, (batch, arguments) in enumerate(batches):
        positional, named = split_arguments(arguments)
        labels = _labels_in(named, model, number)
        others = {name: argument for name, argument in named.items() if name != LABELS}
        inputs = bind_arguments(model, (*positional, others), number)
        if with_labels and labels is not None and LABELS in argument_names(model):
            inputs[LABELS] = labels
        example = Example(number, inputs, labels, batch)
        yield Step(example, partial(_run, model, inputs, batches.author), partial(judged, judge, example))


def _labels_in(named: Mapping[str, Any], model: Any, number: int) -> torch.Tensor | None:
    labels = named.get(LABELS)
    if labels is None:
        return None
    if not isinstance(labels, torch.Tensor):
        raise ShimError(Reason.BAD_DATA, f"batch {number} has {LABELS} that are {type(labels).__name__}, and no tensor")
    return labels.to(model.device)


def _run(model: Any, inputs: Mapping[str, Any], author: str) -> Any:
    with blaming(author):
        return model(**{"use_cache": False, **inputs})


def _judge_of(work: work_pb2.CollectGradients, entry_points: EntryPoints) -> Judge:
    if work.loss_func:
        return partial(_judge_by_python, work.loss_func, entry_points.find(work.loss_func))
    name = BUILT_IN.get(work.built_in)
    if name is None:
        raise ShimError(
            Reason.INVALID_REQUEST,
            "there is no loss to take gradients of",
            f"name a built-in one ({', '.join(BUILT_IN.values())}) or a function, or take it at the client",
        )
    return partial(built_in_loss, name)


def _judge_by_python(name: str, function: Callable[..., Any], returned: Any, example: Example) -> torch.Tensor:
    with blaming(name):
        loss = function(returned, example.batch)
    if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.is_floating_point():
        return loss.reshape(())
    if isinstance(loss, torch.Tensor):
        found = f"a tensor {str(loss.dtype).removeprefix('torch.')} {list(loss.shape)}"
    else:
        found = f"{type(loss).__name__}"
    raise ShimError(
        Reason.PYTHON_FAILED,
        f"{name} gave {found} for batch {example.number} where a scalar tensor belongs",
        "return the mean over the batch, and do not call item() on it",
    )


def _side_of(mask: work_pb2.Mask) -> Literal["input", "output"]:
    side = SIDES.get(mask.side)
    if side is None:
        raise ShimError(
            Reason.INVALID_REQUEST, f"mask {mask.key!r} is on side {mask.side}, which is no side of a module"
        )
    return side
