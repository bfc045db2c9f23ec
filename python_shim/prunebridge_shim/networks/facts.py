"""What tracing a network finds: facts, of which nothing is decided here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stretch:
    """Positions of an axis: channels `begin` to `end` of a group, each with `repeat` positions in a row."""

    group: int
    begin: int
    end: int
    repeat: int


@dataclass(frozen=True)
class Whole:
    """Positions of an axis that stay whatever is cut."""

    size: int


Axis = tuple[Stretch | Whole, ...]


@dataclass(frozen=True)
class OutputModule:
    """A module that gives channels: its path, its kind such as `nn.Conv2d`, and the attribute that counts them."""

    module: str
    kind: str
    attribute: str


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that exist together in every tensor that has them.

    Attributes:
        outputs: The modules whose outputs they are, in the network's order.
        channels: How many there are.
        fixed: Whether they are the network's own outputs, or pass through a module that cannot be cut.
        sections: Equal stretches of which each has to keep as many channels as the others.
        importance: Of each channel [channels]: the L2 norms of its consumers' weights, summed over the consumers.
    """

    outputs: tuple[OutputModule, ...]
    channels: int
    fixed: bool
    sections: int
    importance: NDArray[np.float64]


@dataclass(frozen=True)
class NetworkTensor:
    """A parameter, or a buffer that is stored with them.

    Attributes:
        name: As in the state dict.
        shape: Its own, where axes of blocks are counted over all of them.
        axes: What lies along each axis.
        blocks: Blocks of the first axis, of which each has the second axis' positions to itself, as the filters of a
            grouped convolution have; 1 where there are none.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    is_buffer: bool
    blocks: int = 1


@dataclass(frozen=True)
class Operation:
    """What a module multiplies and adds: `factor` times the product of its axes' sizes, for the dummy input.

    Without a module it is what matrix products outside of layers do, which is taken for the same whatever is cut.
    """

    module: str
    factor: float
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class CountedLayer:
    """A module, and what its attributes count the positions of."""

    module: str
    attributes: Mapping[str, Axis]


@dataclass(frozen=True)
class NetworkFacts:
    """A traced network."""

    groups: Sequence[ChannelGroup]
    tensors: Sequence[NetworkTensor]
    operations: Sequence[Operation]
    layers: Sequence[CountedLayer]
