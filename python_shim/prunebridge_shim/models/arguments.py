"""Arguments of forward as Python functions give them: in the three forms of torch.onnx.export's `args`."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import INPUT_IDS, SET_HERE, argument_names, check_vocabulary


def bind_arguments(model: Any, value: Any, index: int) -> dict[str, Any]:
    """Names the arguments that one batch makes, with tensors on the model's device.

    Args:
        model: The model whose forward takes them.
        value: A dict of arguments by name; a tuple of arguments, the last of which may be a dict of those by name; or
            the only argument.
        index: The batch's number, counted from 0.

    Raises:
        ShimError: BAD_DATA for what forward does not take, and for token ids outside of the vocabulary.
    """
    positional, named = split_arguments(value)
    try:
        bound = inspect.signature(model.forward).bind(*positional, **named).arguments
    except TypeError as error:
        raise _bad(model, f"batch {index} is not what the model's forward takes: {error}") from error
    known = argument_names(model)
    arguments = {name: argument for name, argument in bound.items() if name in known}
    strange = [name for name in named if name not in arguments]
    if strange:
        raise _bad(model, f"batch {index} holds {strange[0]}, which the model's forward does not take")
    embedding = model.get_input_embeddings().weight
    ids = arguments.get(INPUT_IDS)
    # On a GPU the look would wait for it.
    if isinstance(ids, torch.Tensor) and ids.device.type == "cpu" and ids.numel() and not ids.is_floating_point():
        check_vocabulary(int(ids.min()), int(ids.max()), index, embedding.shape[0])
    return {name: _moved(argument, model.device) for name, argument in arguments.items()}


def split_arguments(value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of forward, from any of the forms of `bind_arguments`."""
    # transformers' own batches are mappings and no dicts.
    if isinstance(value, Mapping):
        return (), dict(value)
    if not isinstance(value, tuple):
        return (value,), {}
    if value and isinstance(value[-1], dict):
        return value[:-1], value[-1]
    return value, {}


def _moved(argument: Any, device: torch.device) -> Any:
    return argument.to(device) if isinstance(argument, torch.Tensor) else argument


def _bad(model: Any, message: str) -> ShimError:
    takes = [name for name in argument_names(model) if name not in SET_HERE]
    return ShimError(Reason.BAD_DATA, message, f"it takes {', '.join(takes)}")
