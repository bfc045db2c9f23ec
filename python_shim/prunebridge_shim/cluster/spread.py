"""Which rank runs which sequences. B: batch, S: sequence, M: micro-batch."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.cluster.layout import Layout

TokenIds = NDArray[np.int64]
"""A batch, [B, S]."""


@dataclass(frozen=True)
class Share:
    """What one data parallel rank runs of each round of batches.

    The tokens of several data parallel ranks meet at one expert where expert parallelism is the wider of the two. A
    sample of an expert is the tokens of one batch, so that those ranks, a team, run one batch at a time together.

    Attributes:
        teams: Batches that run at a time.
        team: The number of this rank's team.
        members: Data parallel ranks of each team.
        member: The number of this one in its team.
    """

    teams: int
    team: int
    members: int
    member: int

    def repeats(self, rows: int) -> int:
        """How many members of a team run the same sequences of a batch of so many."""
        return self.members // math.gcd(rows, self.members)

    def rows(self, rows: int) -> slice:
        """The sequences of a batch of so many that this rank runs."""
        parts = math.gcd(rows, self.members)
        part = self.member % parts
        return slice(part * rows // parts, (part + 1) * rows // parts)

    def mine(self, batches: Sequence[TokenIds]) -> list[TokenIds]:
        """What this rank runs of a round; as many micro-batches as every other rank, so that none waits for another."""
        return [batch[self.rows(len(batch))] for batch in batches[self.team :: self.teams]]


def share_of(layout: Layout, layouts: Sequence[Layout], teams: Iterable[frozenset[int]]) -> Share:
    """What a rank runs, given the layouts of all ranks by their numbers, and their teams."""
    own = next(team for team in teams if layout.rank in team)
    beside = [team for team in teams if layouts[min(team)].pipeline == layout.pipeline]
    # By the data parallel ranks of each, all stages number their teams alike.
    numbers = sorted(sorted({layouts[rank].data.rank for rank in team}) for team in beside)
    members = sorted({layouts[rank].data.rank for rank in own})
    return Share(len(numbers), numbers.index(members), len(members), members.index(layout.data.rank))


def teams_of(layouts: Iterable[Layout]) -> list[frozenset[int]]:
    """Finds the ranks of one pipeline stage whose tokens meet, at experts or because they are of one sequence."""
    teams: list[frozenset[int]] = []
    for layout in layouts:
        met = frozenset({*layout.sequence_ranks, *layout.expert_ranks})
        apart = [team for team in teams if not team & met]
        teams = [*apart, met.union(*(team for team in teams if team & met))]
    return teams


def rounds(batches: Iterable[TokenIds], size: int, multiple: int) -> Iterator[tuple[list[TokenIds], int]]:
    """Groups batches of one shape that follow each other into rounds of at most `size`.

    Yields:
        The batches of a round, the last of them repeated until they are a multiple of `multiple`; and how many there
        were before.
    """
    held: list[TokenIds] = []
    for batch in batches:
        if held and (len(held) == size or batch.shape != held[0].shape):
            yield _padded(held, multiple), len(held)
            held = []
        held.append(batch)
    if held:
        yield _padded(held, multiple), len(held)


def _padded(batches: list[TokenIds], multiple: int) -> list[TokenIds]:
    return [*batches, *islice(repeat(batches[-1]), -len(batches) % multiple)]
