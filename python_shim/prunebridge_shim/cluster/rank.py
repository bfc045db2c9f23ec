"""What one rank is and holds, as all work on the job's model needs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import nn

from prunebridge_shim.cluster.exchange import LEADER, Exchange
from prunebridge_shim.cluster.layout import Layout, LocalModel, Place, read_layout
from prunebridge_shim.cluster.measures import TokenGroups
from prunebridge_shim.cluster.spread import Share, share_of, teams_of

MICRO_BATCHES_OF_STAGE = 4
"""Micro-batches of one round for each stage of a pipeline: with so many its bubble is at most a fifth."""


Group = dist.ProcessGroup | None


@dataclass(frozen=True)
class Rank:
    """This rank.

    Attributes:
        layout: Its place in the job.
        model: Its part of the model.
        share: Its part of each round of batches.
        groups: The ranks that it shares samples out with.
        exchange: Reaches all ranks.
    """

    layout: Layout
    model: LocalModel
    share: Share
    groups: TokenGroups
    exchange: Exchange

    @property
    def leads(self) -> bool:
        """Whether batches come to this rank, and what was measured goes from it."""
        return self.layout.rank == LEADER

    @property
    def is_sequence_parallel(self) -> bool:
        """Whether tensor parallel ranks share sequences out between their layers' projections."""
        return bool(self.model.chunks[0].config.sequence_parallel)

    @property
    def copies(self) -> int:
        """How many ranks bring the same token to the experts."""
        return 1 if self.is_sequence_parallel else self.layout.tensor.size

    @property
    def length_multiple(self) -> int:
        """What the tokens of a sequence have to be a multiple of for all ranks to hold as many."""
        # Context parallel ranks hold two chunks each, one of the beginning and one of the end.
        chunks = 2 * self.layout.context.size if self.layout.context.size > 1 else 1
        return chunks * (self.layout.tensor.size if self.is_sequence_parallel else 1)

    @property
    def round_size(self) -> int:
        """Batches of a round at most."""
        stages = self.layout.pipeline.size
        return self.share.teams * (MICRO_BATCHES_OF_STAGE * stages if stages > 1 else 1)

    @property
    def round_multiple(self) -> int:
        """What the batches of a round have to be a multiple of."""
        if len(self.model.chunks) == 1:
            return self.share.teams
        together: int = self.model.chunks[0].config.microbatch_group_size_per_vp_stage
        return self.share.teams * together


def find_rank(model: nn.Module | Sequence[nn.Module], exchange: Exchange) -> Rank:
    """Finds what this rank is; every rank has to call it."""
    from megatron.core import parallel_state as ps

    layout = read_layout()
    layouts: list[Layout] = exchange.gather_everywhere(layout)
    teams = teams_of(layouts)
    groups = TokenGroups(
        context=ps.get_context_parallel_group(),
        sequence=ps.get_tensor_and_context_parallel_group(),
        expert=_expert_group(_alike(teams, layouts), layouts, exchange),
        expert_channels=ps.get_expert_tensor_parallel_group(),
    )
    return Rank(layout, LocalModel(model, layout), share_of(layout, layouts, teams), groups, exchange)


def _expert_group(alike: Sequence[tuple[int, ...]], layouts: Sequence[Layout], exchange: Exchange) -> Group:
    """The ranks of a team that hold the same experts, of all sets of such; Megatron-Core has groups of some."""
    from megatron.core import parallel_state as ps

    own: Group = None
    for ranks in alike:
        if ranks == layouts[ranks[0]].context_ranks:
            group: Group = ps.get_context_parallel_group()
        else:
            group = exchange.make_group(ranks)
        own = group if exchange.rank in ranks else own
    return own


def _alike(teams: Iterable[frozenset[int]], layouts: Sequence[Layout]) -> list[tuple[int, ...]]:
    """The ranks of each team that hold the same experts, where there are several."""
    found: dict[tuple[int, Place, Place], list[int]] = {}
    for number, team in enumerate(teams):
        for rank in sorted(team):
            found.setdefault((number, layouts[rank].expert, layouts[rank].expert_tensor), []).append(rank)
    return sorted(tuple(ranks) for ranks in found.values() if len(ranks) > 1)
