"""Traces a network: which channels are one, what they are in, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunebridge_shim.networks.coupling import Channels, Coupled, Node, describe_axis, find_groups, find_places
from prunebridge_shim.networks.facts import (
    Axis,
    ChannelGroup,
    CountedLayer,
    NetworkFacts,
    NetworkTensor,
    Operation,
    OutputModule,
    Stretch,
    Whole,
)
from prunebridge_shim.networks.graph import Counted, couple, run_layers
from prunebridge_shim.networks.layers import (
    CONVOLUTIONS,
    TRANSPOSED,
    Layer,
    describe_layer,
    describe_parameter,
    input_norms,
)
from prunebridge_shim.networks.trial import keep_what_fails
from prunebridge_shim.tensors import Tick

CUTTABLE = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
"""The kinds of layer whose outputs are hyperparameters."""


def trace(network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], tick: Tick) -> NetworkFacts:
    """Finds what can be cut of a network, which is left as it is.

    Every group is tried: one without which the network does not compute what it should has to stay.

    Args:
        network: Any module.
        args: Positional arguments of its forward.
        kwargs: The named ones.
        tick: Hears of groups that were tried; may raise to end that.

    Raises:
        ShimError: BAD_DATA where the network does not run on them, or its graph cannot be followed.
    """
    modules = dict(network.named_modules())
    layers = {name: layer for name, module in modules.items() if (layer := describe_layer(module))}
    with _in_eval_mode(network):
        counted = run_layers(network, layers, lambda: network(*args, **kwargs))
        layers = {name: layer for name, layer in layers.items() if name in counted.factors} | _parameters_between(
            network
        )
        nodes = [(name, side) for name, layer in layers.items() for side in layer.sizes]
        channels = Channels([((name, side), layers[name].sizes[side]) for name, side in nodes])
        roots = [(name, side) for name, side in nodes if side != "in" and isinstance(modules.get(name), CUTTABLE)]
        bound = couple(network, roots, channels, lambda: network(*args, **kwargs))
    groups = [group for group in find_groups(channels, nodes) if not set(group.nodes).isdisjoint(roots)]
    places = find_places(groups)
    traced = _Traced(modules, layers, {node: describe_axis(channels.of(node), places) for node in nodes}, bound)
    facts = NetworkFacts(
        [traced.describe_group(number, group) for number, group in enumerate(groups)],
        [traced.describe_tensor(*tensor) for tensor in _tensors(network)],
        traced.describe_operations(counted),
        [traced.describe_layer(name) for name, layer in layers.items() if layer.attributes],
    )
    with _in_eval_mode(network):
        return keep_what_fails(facts, network, lambda one: one(*args, **kwargs), tick)


@dataclass(frozen=True)
class _Traced:
    """Layers that ran, what lies along the axes of their sides, and the channels that have to stay."""

    modules: Mapping[str, nn.Module]
    layers: Mapping[str, Layer]
    axes: Mapping[Node, Axis]
    bound: frozenset[int]

    def describe_group(self, number: int, group: Coupled) -> ChannelGroup:
        channels = len(group.channels)
        apart = [node for node in group.nodes if self.layers[node[0]].sections > 1]
        # Sections of a layer that has other channels beside these would be cut unevenly.
        uneven = any(self.axes[node] != (Stretch(number, 0, channels, 1),) for node in apart)
        importance = np.zeros(channels)
        for name, side in group.nodes:
            if side == "in":
                squares = input_norms(self.modules[name], self.layers[name]).cpu().numpy()
                importance += np.sqrt(_sum_by_channel(squares, self.axes[name, side], number, channels))
        return ChannelGroup(
            outputs=tuple(
                _output(name, self.modules[name])
                for name, side in group.nodes
                if side != "in" and name in self.modules and isinstance(self.modules[name], CUTTABLE)
            ),
            channels=channels,
            fixed=uneven or not self.bound.isdisjoint(group.channels.tolist()),
            sections=lcm(*(self.layers[name].sections for name, _ in apart)),
            importance=importance,
        )

    def describe_tensor(self, name: str, shape: Sequence[int], is_buffer: bool) -> NetworkTensor:
        owner, leaf = (name, "") if name in self.layers else name.rpartition(".")[::2]
        layer = self.layers.get(owner)
        axes: list[Axis] = [(Whole(size),) for size in shape]
        for at, side in enumerate(layer.axes.get(leaf, ()) if layer else ()):
            if side is not None:
                axes[at] = self.axes[owner, side]
        blocks = layer.sections if layer and layer.filters and leaf == "weight" else 1
        return NetworkTensor(name, tuple(shape), tuple(axes), is_buffer, blocks)

    def describe_operations(self, counted: Counted) -> list[Operation]:
        found = [
            Operation(name, factor, tuple(self.axes[name, side] for side in self.layers[name].sizes))
            for name, factor in counted.factors.items()
            if factor > 0
        ]
        in_layers = sum(one.factor * prod(self.layers[one.module].sizes.values()) for one in found)
        # Products that are no layer's, such as those of attention, stay as they are.
        between = round(counted.total - in_layers)
        return [*found, Operation("", between, ())] if between > 0 else found

    def describe_layer(self, name: str) -> CountedLayer:
        attributes = self.layers[name].attributes.items()
        return CountedLayer(name, {attribute: self.axes[name, side] for attribute, side in attributes})


def _output(name: str, module: nn.Module) -> OutputModule:
    kind = next(kind for kind in CUTTABLE if isinstance(module, kind))
    return OutputModule(name, f"nn.{kind.__name__}", "out_features" if kind is nn.Linear else "out_channels")


def _sum_by_channel(values: NDArray[np.float64], axis: Axis, group: int, channels: int) -> NDArray[np.float64]:
    """Sums what lies along an axis over the positions of each channel of a group."""
    sums = np.zeros(channels)
    at = 0
    for part in axis:
        size = part.size if isinstance(part, Whole) else (part.end - part.begin) * part.repeat
        if isinstance(part, Stretch) and part.group == group:
            sums[part.begin : part.end] += values[at : at + size].reshape(-1, part.repeat).sum(1)
        at += size
    return sums


def _parameters_between(network: nn.Module) -> dict[str, Layer]:
    """Parameters that no layer owns, such as the scales of residual branches."""
    owned = {
        f"{name}.{leaf}"
        for name, module in network.named_modules()
        if (layer := describe_layer(module))
        for leaf in layer.axes
    }
    found = (
        (name, describe_parameter(parameter)) for name, parameter in network.named_parameters() if name not in owned
    )
    return {name: layer for name, layer in found if layer}


def _tensors(network: nn.Module) -> Iterator[tuple[str, Sequence[int], bool]]:
    """Parameters and stored buffers: name, shape, and whether it is a buffer."""
    stored = network.state_dict(keep_vars=True)
    parameters = {name for name, _ in network.named_parameters()}
    for name, tensor in stored.items():
        if name in parameters or not isinstance(tensor, nn.Parameter):
            yield name, tuple(tensor.shape), name not in parameters


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    try:
        network.eval()
        yield
    finally:
        for module in training:
            module.training = True
