"""Puts together on the leader what the ranks measured of each accumulator. C: channels, E: experts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from prunebridge_shim.cluster.layout import Layout
from prunebridge_shim.cluster.points import Held
from prunebridge_shim.collect.experts import ROUTED
from prunebridge_shim.tensors import HostTensor

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """A rank's part of an accumulator, as the experts of its row and the channels of its column are."""

    key: str
    row: int
    column: int
    values: Values


def add_up(held: Sequence[Held], sums: Mapping[str, torch.Tensor]) -> dict[str, Values]:
    """Adds sums up over the ranks that hold the same part of the model and ran other sequences, and fetches them.

    Every rank has to call it. Accumulators of which nothing was measured are left out.
    """
    from megatron.core import parallel_state as ps

    routed = {one.point.key for one in held if one.point.measure in ROUTED}
    dense = {key: value for key, value in sums.items() if key not in routed}
    of_experts = {key: value for key, value in sums.items() if key in routed}
    return {
        **_added_up(dense, ps.get_data_parallel_group()),
        **_added_up(of_experts, ps.get_expert_data_parallel_group()),
    }


def _added_up(sums: Mapping[str, torch.Tensor], group: dist.ProcessGroup) -> dict[str, Values]:
    if not sums:
        return {}
    flat = torch.cat([value.flatten() for value in sums.values()])
    dist.all_reduce(flat, group=group)
    parts = flat.cpu().split([value.numel() for value in sums.values()])
    return {key: part.reshape(value.shape).numpy() for (key, value), part in zip(sums.items(), parts, strict=True)}


def pieces_of(held: Sequence[Held], sums: Mapping[str, Values], layout: Layout) -> list[Piece]:
    """The pieces that this rank brings; of ranks that hold the same, one does."""
    return [
        Piece(one.point.key, row, column if one.splits_channels else 0, sums[one.point.key])
        for one in held
        for is_first, row, column in [_place(one, layout)]
        if one.point.key in sums and is_first and (one.splits_channels or column == 0)
    ]


def _place(one: Held, layout: Layout) -> tuple[bool, int, int]:
    """Whether a rank is the first of those that hold the same, and the row and the column of what it holds."""
    if one.point.measure in ROUTED:
        return layout.expert_data.rank == 0, layout.expert.rank, layout.expert_tensor.rank
    return layout.data.rank == layout.context.rank == 0, 0, layout.tensor.rank


def assemble(pieces: Iterable[Piece]) -> dict[str, HostTensor]:
    """Joins pieces: columns along the last axis, rows along the first."""
    found: dict[str, dict[int, dict[int, Values]]] = {}
    for piece in pieces:
        found.setdefault(piece.key, {}).setdefault(piece.row, {})[piece.column] = piece.values
    return {key: HostTensor("F32", _joined(rows)) for key, rows in found.items()}


def _joined(rows: Mapping[int, Mapping[int, Values]]) -> Values:
    whole = [_concatenated([columns[at] for at in sorted(columns)], -1) for _, columns in sorted(rows.items())]
    return _concatenated(whole, 0)


def _concatenated(parts: Sequence[Values], axis: int) -> Values:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
