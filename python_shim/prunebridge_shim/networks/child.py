"""Builds a child of a network: the same modules, of which each has the sizes that its tensors say."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from prunebridge_shim.networks.layers import Layer, Side, describe_layer


def build_child(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Copies a network with other tensors in the stead of its own.

    Args:
        network: Left as it is; what is neither a parameter nor a stored buffer is copied.
        tensors: The child's parameters and stored buffers by name, all of them. They are not copied.

    Returns:
        The child, whose layers count the channels that their tensors have.
    """
    stored = network.state_dict(keep_vars=True)
    replaced: dict[int, object] = {}
    for name, tensor in stored.items():
        is_parameter = isinstance(tensor, nn.Parameter)
        replaced[id(tensor)] = nn.Parameter(tensors[name], tensor.requires_grad) if is_parameter else tensors[name]
    child = copy.deepcopy(network, replaced)
    for module in child.modules():
        layer = describe_layer(module)
        if layer:
            _count_anew(module, layer)
    return child


def _count_anew(module: nn.Module, layer: Layer) -> None:
    for attribute, side in layer.attributes.items():
        size = _size_of(module, layer, side)
        if size is not None:
            setattr(module, attribute, (size,) if attribute == "normalized_shape" else size)


def _size_of(module: nn.Module, layer: Layer, side: Side) -> int | None:
    """The channels that a layer's tensors have on a side; None where no tensor says."""
    for name, sides in layer.axes.items():
        tensor = getattr(module, name, None)
        if isinstance(tensor, torch.Tensor) and side in sides:
            axis = sides.index(side)
            return tensor.shape[axis] * (layer.sections if layer.filters and name == "weight" and axis == 1 else 1)
    return None
