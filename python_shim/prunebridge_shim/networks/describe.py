"""Describes a traced network by what lies along its layers' sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm, prod

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.coupling import Coupled, Node
from prunebridge_shim.networks.facts import (
    Axis,
    ChannelGroup,
    CountedLayer,
    NetworkTensor,
    Operation,
    OutputModule,
    Stretch,
    Whole,
)
from prunebridge_shim.networks.graph import Counted
from prunebridge_shim.networks.layers import CONVOLUTIONS, TRANSPOSED, Layer, input_norms

CUTTABLE = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
"""The kinds of layer whose outputs are hyperparameters."""


@dataclass(frozen=True)
class Traced:
    """Layers that ran, what lies along the axes of their sides, and the channels that have to stay."""

    modules: Mapping[str, nn.Module]
    layers: Mapping[str, Layer]
    axes: Mapping[Node, Axis]
    bound: frozenset[int]

    def describe_group(self, number: int, group: Coupled) -> ChannelGroup:
        """A group, with the importances of its channels."""
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
        """What lies along a tensor's axes."""
        owner, leaf = (name, "") if name in self.layers else name.rpartition(".")[::2]
        layer = self.layers.get(owner)
        axes: list[Axis] = [(Whole(size),) for size in shape]
        for at, side in enumerate(layer.axes.get(leaf, ()) if layer else ()):
            if side is not None:
                axes[at] = self.axes[owner, side]
        blocks = layer.sections if layer and layer.filters and leaf == "weight" else 1
        return NetworkTensor(name, tuple(shape), tuple(axes), is_buffer, blocks)

    def describe_operations(self, counted: Counted) -> list[Operation]:
        """What layers multiply and add, and what is beside them."""
        found = [
            Operation(name, factor, tuple(self.axes[name, side] for side in self.layers[name].sizes))
            for name, factor in counted.factors.items()
            if factor > 0
        ]
        in_layers = sum(one.factor * prod(self.layers[one.module].sizes.values()) for one in found)
        # Products that are no layer's, such as those of attention, stay as they are.
        between = round(counted.total - in_layers)
        if between < 0:
            raise ShimError(
                Reason.INTERNAL,
                f"layers multiply and add {in_layers:.0f} times, and the network of them {counted.total:.0f}",
                "a layer's own forward runs what torch does not count",
            )
        return [*found, Operation("", between, ())] if between > 0 else found

    def describe_layer(self, name: str) -> CountedLayer:
        """What the attributes of a layer count."""
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
