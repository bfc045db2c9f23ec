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


def split_blocks(
    tensor: torch.Tensor, blocks: int, axes: Sequence[Sequence[int]]
) -> list[tuple[torch.Tensor, Sequence[Sequence[int]]]]:
    """A tensor's blocks of rows, in its own memory, each with its own of the positions along the axes.

    Positions of the second axis are counted over all blocks; each block has its own.
    """
    if blocks == 1:
        return [(tensor, axes)]
    rows, columns = tensor.shape[0] // blocks, tensor.shape[1]
    return [
        (
            tensor[block * rows : (block + 1) * rows],
            [
                [at - block * rows for at in axes[0] if at // rows == block],
                [at - block * columns for at in axes[1] if at // columns == block],
                *axes[2:],
            ],
        )
        for block in range(blocks)
    ]


def _cut_tensor(tensor: torch.Tensor, described: NetworkTensor, kept: Kept) -> torch.Tensor:
    axes = [positions(axis, kept) for axis in described.axes]
    blocks = [_select(block, own) for block, own in split_blocks(tensor, described.blocks, axes)]
    return blocks[0] if described.blocks == 1 else torch.cat(blocks)


def _select(tensor: torch.Tensor, axes: Sequence[Sequence[int]]) -> torch.Tensor:
    for axis, found in enumerate(axes):
        if len(found) < tensor.shape[axis]:
            tensor = tensor.index_select(axis, torch.tensor(found, dtype=torch.long, device=tensor.device))
    return tensor
