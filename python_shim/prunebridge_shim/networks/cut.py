"""Cuts a network to some of its channels."""

from collections.abc import Sequence

import torch
from torch import nn

from prunebridge_shim.networks.child import build_child
from prunebridge_shim.networks.facts import Axis, NetworkFacts, NetworkTensor, Stretch, Whole

Kept = Sequence[Sequence[int]]
"""For each group the channels that stay, ascending."""


def cut(network: nn.Module, facts: NetworkFacts, kept: Kept) -> nn.Module:
    """The network with the channels that stay, in memory of its own; the network is left as it is."""
    stored = network.state_dict()
    tensors = {one.name: _cut_tensor(stored[one.name], one, kept) for one in facts.tensors}
    sizes = {
        one.module: {attribute: size_of(axis, kept) for attribute, axis in one.attributes.items()}
        for one in facts.layers
    }
    child: nn.Module = build_child(network, tensors, sizes)
    return child


def positions(axis: Axis, kept: Kept) -> list[int]:
    """The positions of an axis that stay, ascending."""
    found: list[int] = []
    at = 0
    for part in axis:
        if isinstance(part, Whole):
            found.extend(range(at, at + part.size))
            at += part.size
            continue
        for channel in kept[part.group]:
            if part.begin <= channel < part.end:
                first = at + (channel - part.begin) * part.repeat
                found.extend(range(first, first + part.repeat))
        at += (part.end - part.begin) * part.repeat
    return found


def size_of(axis: Axis, kept: Kept) -> int:
    """How many positions of an axis stay."""
    return sum(part.size if isinstance(part, Whole) else part.repeat * _count(part, kept[part.group]) for part in axis)


def _count(part: Stretch, channels: Sequence[int]) -> int:
    return sum(part.begin <= channel < part.end for channel in channels)


def _cut_tensor(tensor: torch.Tensor, described: NetworkTensor, kept: Kept) -> torch.Tensor:
    axes = [positions(axis, kept) for axis in described.axes]
    if described.blocks == 1:
        return _select(tensor, axes)
    # Positions of the second axis are counted over all blocks; each block of rows has its own.
    rows, columns = tensor.shape[0] // described.blocks, tensor.shape[1]
    blocks = []
    for block in range(described.blocks):
        own = [at - block * rows for at in axes[0] if at // rows == block]
        across = [at - block * columns for at in axes[1] if at // columns == block]
        blocks.append(_select(tensor[block * rows : (block + 1) * rows], [own, across, *axes[2:]]))
    return torch.cat(blocks)


def _select(tensor: torch.Tensor, axes: Sequence[Sequence[int]]) -> torch.Tensor:
    for axis, found in enumerate(axes):
        if len(found) < tensor.shape[axis]:
            tensor = tensor.index_select(axis, torch.tensor(found, dtype=torch.long, device=tensor.device))
    return tensor
