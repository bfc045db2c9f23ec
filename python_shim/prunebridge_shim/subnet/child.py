"""Builds a child's modules without memory."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError


def build_child(model: Any, config_json: str) -> Any:
    """Builds a model by a config, as an open one is in all else, in eval mode.

    Its parameters and persistent buffers are on the meta device; its other tensors, such as rotary frequencies, are
    what loading it from a checkpoint would make them.

    Raises:
        ShimError: INVALID_REQUEST where the config makes no model, or one of other tensors.
    """
    parent = model.config
    try:
        values = json.loads(config_json, object_hook=read_float)
        if values["model_type"] != parent.model_type:
            raise ValueError(
                f"its model_type is {values['model_type']!r} where the open model's is {parent.model_type!r}"
            )
        config = type(parent).from_dict(values)
        config._attn_implementation = parent._attn_implementation  # noqa: SLF001 transformers' own switch
        with torch.device("meta"):
            child = type(model)(config)
        child.tie_weights()
    except Exception as error:  # transformers raises whatever is at hand for a config that contradicts itself
        cause = f"{type(error).__name__}: {error}"
        raise ShimError(Reason.INVALID_REQUEST, f"the child's config makes no model: {cause}") from error
    if hasattr(model, "generation_config"):  # an encoder generates nothing
        child.generation_config = model.generation_config
    _fill_other_tensors(model, child)
    return child.eval().requires_grad_(False)


def read_float(values: dict[str, Any]) -> Any:
    """Turns what transformers writes for a float that JSON lacks, such as `{"__float__": "Infinity"}`, into it."""
    return float(values["__float__"]) if values.keys() == {"__float__"} else values


def stored_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of a model, by name: parameters and persistent buffers, tied ones under each name."""
    return dict(model.state_dict(keep_vars=True))


def names_of_each(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """For each name all names of the same tensor."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), []).append(name)
    return {name: group for group in groups.values() for name in group}


def place(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Puts a tensor, or a parameter of it, in the stead of a parameter or buffer."""
    path, _, leaf = name.rpartition(".")
    place_in(model.get_submodule(path), leaf, tensor)


def place_in(owner: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    """As `place`, of the module that has it."""
    if isinstance(getattr(owner, leaf), nn.Parameter) and not isinstance(tensor, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=False)
    setattr(owner, leaf, tensor)


def _fill_other_tensors(model: Any, child: Any) -> None:
    stored = {id(tensor) for tensor in stored_tensors(child).values()}
    for path, module in child.named_modules():
        others = [other for other in _tensors_held(module) if id(other[2]) not in stored]
        for held, name, tensor in others:
            held[name] = _counterpart(model, path, name, tensor).clone()
        if others:
            # Some follow from the config, such as the scale of an embedding. transformers computes them here, as it
            # does when it loads; what it does not compute stays the parent's.
            child._init_weights(module)  # noqa: SLF001


def _counterpart(model: nn.Module, path: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
    where = f"{path}.{name}" if path else name
    try:
        found: torch.Tensor = getattr(model.get_submodule(path), name)
    except AttributeError:
        raise ShimError(Reason.INVALID_REQUEST, f"the child has a buffer {where} that the model lacks") from None
    if found.shape != tensor.shape:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"buffer {where} is {list(found.shape)} where the child's config makes it {list(tensor.shape)}",
            "buffers that no checkpoint holds keep their shape: the config changes what it must not",
        )
    return found


def _tensors_held(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    for held in (module._buffers, vars(module)):  # noqa: SLF001 there is no public way to replace either
        yield from ((held, name, value) for name, value in held.items() if isinstance(value, torch.Tensor))
