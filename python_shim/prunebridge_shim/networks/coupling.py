"""Channels that are one: a union-find over the channels of all modules."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.networks.facts import Axis, Stretch, Whole

Node = tuple[str, str]
"""A layer's name and one of its sides, which has channels."""


class Channels:
    """All channels of all nodes, joined as they are found to be one.

    Args:
        sizes: Each node and its channels, in the network's order.
    """

    def __init__(self, sizes: Sequence[tuple[Node, int]]) -> None:
        self._begin: dict[Node, int] = {}
        total = 0
        for node, size in sizes:
            self._begin[node] = total
            total += size
        self._sizes = dict(sizes)
        self._above = np.arange(total)

    def __contains__(self, node: Node) -> bool:
        return node in self._begin

    def join(self, one: Node, positions: Sequence[int], other: Node, others: Sequence[int]) -> None:
        """Says that positions of a node are the same channels as those of another, pair by pair."""
        for a, b in zip(positions, others, strict=True):
            low, high = sorted((self._find(self._begin[one] + a), self._find(self._begin[other] + b)))
            self._above[high] = low

    def of(self, node: Node) -> NDArray[np.int64]:
        """The channel at each position of a node: equal numbers are one channel."""
        begin = self._begin[node]
        return np.array([self._find(at) for at in range(begin, begin + self._sizes[node])], np.int64)

    def _find(self, at: int) -> int:
        above = self._above
        while above[at] != at:
            above[at] = above[above[at]]
            at = int(above[at])
        return at


@dataclass(frozen=True)
class Coupled:
    """Channels that are in the same nodes, ascending: a group."""

    nodes: tuple[Node, ...]
    channels: NDArray[np.int64]


def find_groups(channels: Channels, nodes: Sequence[Node]) -> list[Coupled]:
    """Joins channels that are in the same nodes, in the order of their first node."""
    places: dict[int, list[Node]] = {}
    for node in nodes:
        for label in np.unique(channels.of(node)).tolist():
            places.setdefault(label, []).append(node)
    groups: dict[tuple[Node, ...], list[int]] = {}
    for label, found in sorted(places.items()):
        groups.setdefault(tuple(found), []).append(label)
    return [Coupled(found, np.array(labels, np.int64)) for found, labels in groups.items()]


def describe_axis(labels: NDArray[np.int64], groups: Sequence[Coupled]) -> Axis:
    """An axis as stretches, from the channel at each of its positions; what is in no group stays whole."""
    places = {
        label: (number, at) for number, group in enumerate(groups) for at, label in enumerate(group.channels.tolist())
    }
    parts: list[Stretch | Whole] = []
    for label, run in itertools.groupby(labels.tolist()):
        repeat = len(list(run))
        last = parts[-1] if parts else None
        if label not in places:
            parts[-1:] = [Whole(last.size + repeat)] if isinstance(last, Whole) else [*parts[-1:], Whole(repeat)]
            continue
        group, channel = places[label]
        if isinstance(last, Stretch) and (last.group, last.end, last.repeat) == (group, channel, repeat):
            parts[-1] = Stretch(group, last.begin, channel + 1, repeat)
        else:
            parts.append(Stretch(group, channel, channel + 1, repeat))
    return tuple(parts)
