"""Channels that are one: a union-find over the channels of all modules."""

import itertools
from collections.abc import Mapping, Sequence
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
        self._labels = np.arange(total)
        self._joined: list[NDArray[np.int64]] = []

    def __contains__(self, node: Node) -> bool:
        return node in self._begin

    def hold(self, node: Node, positions: Sequence[int]) -> bool:
        """Whether a node has all of these positions."""
        return node in self._begin and max(positions, default=0) < self._sizes[node]

    def size(self, node: Node) -> int:
        """How many channels a node has."""
        return self._sizes[node]

    def join(self, one: Node, positions: Sequence[int], other: Node, others: Sequence[int]) -> None:
        """Says that positions of a node are the same channels as those of another, pair by pair."""
        ours, theirs = np.asarray(positions, np.int64), np.asarray(others, np.int64)
        self._joined.append(np.stack([ours + self._begin[one], theirs + self._begin[other]]))

    def of(self, node: Node) -> NDArray[np.int64]:
        """The channel at each position of a node: equal numbers are one channel, the least of those that it joins."""
        if self._joined:
            self._labels = _least_of_each(self._labels, np.concatenate(self._joined, 1))
            self._joined.clear()
        begin = self._begin[node]
        return self._labels[begin : begin + self._sizes[node]]


def _least_of_each(labels: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives each place the least label of all that pairs [2, N] of places join it to."""
    while True:
        low, high = np.sort(labels[pairs], axis=0)
        if np.array_equal(low, high):
            return labels
        np.minimum.at(labels, high, low)
        while not np.array_equal(labels, above := labels[labels]):
            labels = above


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


Places = Mapping[int, tuple[int, int]]
"""For each channel that is in a group, the group's number and its place in it."""


def find_places(groups: Sequence[Coupled]) -> Places:
    """Where each channel is."""
    return {
        label: (number, at) for number, group in enumerate(groups) for at, label in enumerate(group.channels.tolist())
    }


def describe_axis(labels: NDArray[np.int64], places: Places) -> Axis:
    """An axis as stretches, from the channel at each of its positions; what is in no group stays whole."""
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
