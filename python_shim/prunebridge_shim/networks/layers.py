"""The kinds of layer that can be cut, and what lies along the axes of their tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Side = Literal["in", "out", "both"]
"""Channels that a layer takes, that it gives, or that it passes on one by one."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PASSING = {
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d): "num_features",
    (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d): "num_features",
    (nn.PReLU,): "num_parameters",
}
"""Layers that treat each channel by itself, and the attribute that counts their channels."""
_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Layer:
    """What a layer has.

    Attributes:
        sizes: Its channels on each side.
        axes: For each of its tensors, the sides along its first axes; None and all other axes are whole.
        sections: Equal stretches of its channels that it treats apart: each has to keep as many.
        filters: Whether its weight has a filter for each section, over the channels of that section alone.
        attributes: The attributes that count its channels, by side.
    """

    sizes: Mapping[Side, int]
    axes: Mapping[str, tuple[Side | None, ...]]
    attributes: Mapping[str, Side]
    sections: int = 1
    filters: bool = False


def describe_layer(module: nn.Module) -> Layer | None:
    """What a module has, where it is of a kind that can be cut."""
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return _convolution(module)
    if isinstance(module, nn.Linear):
        sizes: dict[Side, int] = {"in": module.in_features, "out": module.out_features}
        return Layer(sizes, {"weight": ("out", "in"), "bias": ("out",)}, {"in_features": "in", "out_features": "out"})
    if isinstance(module, nn.GroupNorm):
        return _passing(module.num_channels, "num_channels", module.num_groups)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return _passing(module.normalized_shape[0], "normalized_shape")
    counted = next((attribute for kinds, attribute in _PASSING.items() if isinstance(module, kinds)), None)
    return None if counted is None else _passing(getattr(module, counted), counted)


def describe_parameter(parameter: nn.Parameter) -> Layer | None:
    """What a parameter that no layer owns has: channels along its only axis that is longer than one."""
    long = [at for at, size in enumerate(parameter.shape) if size > 1]
    if len(long) != 1:
        return None
    return Layer({"both": parameter.shape[long[0]]}, {"": (*(None,) * long[0], "both")}, {})


def _passing(channels: int, attribute: str, sections: int = 1) -> Layer:
    return Layer({"both": channels}, dict.fromkeys(_NORM_TENSORS, ("both",)), {attribute: "both"}, sections)


def _convolution(module: Any) -> Layer:
    if module.groups == module.out_channels == module.in_channels > 1 and not module.transposed:
        counted: dict[str, Side] = dict.fromkeys(("in_channels", "out_channels", "groups"), "both")
        return Layer({"both": module.out_channels}, {"weight": ("both",), "bias": ("both",)}, counted)
    sizes: dict[Side, int] = {"in": module.in_channels, "out": module.out_channels}
    weight: tuple[Side, Side] = ("in", "out") if module.transposed else ("out", "in")
    attributes: dict[str, Side] = {"in_channels": "in", "out_channels": "out"}
    return Layer(sizes, {"weight": weight, "bias": ("out",)}, attributes, module.groups, filters=module.groups > 1)


def multiply_accumulates(module: Any, given: torch.Tensor, returned: torch.Tensor) -> float:
    """What a layer multiplies and adds for each pair of an input and an output channel.

    For each channel where it passes them on one by one, and nothing where it only scales them.
    """
    if isinstance(module, nn.Linear):
        return returned.numel() / module.out_features
    if not isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return 0
    kernel = math.prod(module.kernel_size)
    positions = given.numel() / module.in_channels if module.transposed else returned.numel() / module.out_channels
    passes = module.groups == module.in_channels == module.out_channels and not module.transposed
    return positions * kernel / (1 if passes else module.groups)


def input_norms(module: Any, layer: Layer) -> torch.Tensor:
    """The squared L2 norm of a layer's weights on each of its input channels [in], in float64."""
    squares: torch.Tensor = module.weight.detach().double().square()
    if not layer.filters:
        axis = layer.axes["weight"].index("in")
        return squares.movedim(axis, 0).flatten(1).sum(1)
    if module.transposed:  # each input channel has its own weights
        return squares.flatten(1).sum(1)
    # [section, out, in, ...]: the filters of a section are over its own channels.
    by_section = squares.reshape(layer.sections, -1, *squares.shape[1:])
    return by_section.movedim(2, 1).flatten(2).sum(2).flatten()
