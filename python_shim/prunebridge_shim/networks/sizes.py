"""Attributes of modules that count channels, set and checked against the tensors that they count."""

import difflib
from collections.abc import Mapping

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.layers import Layer, describe_layer

Sizes = Mapping[str, Mapping[str, int]]
"""Attributes by module."""

IN_A_TUPLE = "normalized_shape"


def set_sizes(network: nn.Module, sizes: Sizes, reason: Reason) -> None:
    """Sets attributes of a network's modules.

    Raises:
        ShimError: UNKNOWN_MODULE for a module that there is not; `reason` for an attribute that is no size, or for
            none.
    """
    modules = dict(network.named_modules())
    for path, attributes in sizes.items():
        if path not in modules:
            nearest = difflib.get_close_matches(path, modules, n=3)
            hint = f"nearest are {', '.join(nearest)}" if nearest else ""
            raise ShimError(Reason.UNKNOWN_MODULE, f"the network has no module {path!r}", hint)
        for attribute, size in attributes.items():
            _set_size(modules[path], path, attribute, size, reason)


def _set_size(module: nn.Module, path: str, attribute: str, size: int, reason: Reason) -> None:
    known = vars(module).get(attribute)
    if attribute == IN_A_TUPLE and isinstance(known, tuple) and len(known) == 1:
        setattr(module, attribute, (size,))
    elif isinstance(known, int) and not isinstance(known, bool) and size > 0:
        setattr(module, attribute, size)
    else:
        has = f"is {known!r}" if attribute in vars(module) else "is not there"
        raise ShimError(
            reason,
            f"{path}.{attribute} cannot be {size}: it {has} in a {type(module).__name__}",
            "name attributes of the module itself that are numbers of channels, and sizes above 0",
        )


def check_sizes(network: nn.Module, reason: Reason) -> None:
    """Raises `reason` where a layer of a kind that is known counts other channels than its tensors have."""
    for path, module in network.named_modules():
        layer = describe_layer(module)
        if layer is not None:
            _check_layer(module, path, layer, reason)


def _check_layer(module: nn.Module, path: str, layer: Layer, reason: Reason) -> None:
    attributes = {side: attribute for attribute, side in layer.attributes.items()}
    for side, size in layer.sizes.items():
        if size % layer.sections:
            raise _differ(reason, f"{path}.{attributes[side]} is {size}, which no {layer.sections} groups share evenly")
    for name, sides in layer.axes.items():
        tensor = getattr(module, name, None)
        if not isinstance(tensor, torch.Tensor):
            continue
        for axis, along in enumerate(sides):
            if along is None:
                continue
            in_filter = layer.filters and name == "weight" and axis == 1
            counted = layer.sizes[along] // (layer.sections if in_filter else 1)
            if tensor.shape[axis] != counted:
                where = f"{path}.{attributes[along]} {layer.sizes[along]}"
                raise _differ(
                    reason, f"{path}.{name} is {list(tensor.shape)}, where {where} makes axis {axis} one of {counted}"
                )


def _differ(reason: Reason, message: str) -> ShimError:
    return ShimError(reason, message, "the attributes and the tensors are of different plans")
