"""Gathers what is kept of live tensors."""

from collections.abc import Iterator
from itertools import groupby

import torch

from prunebridge_shim.slicing.kept import Kept, KeptAxes
from prunebridge_shim.slicing.request import Indices


class Gather:
    """Cuts tensors, to whose device each index set is moved once."""

    def __init__(self) -> None:
        # With the array itself, since an id is only an array's for as long as that lives.
        self._moved: dict[tuple[int, torch.device], tuple[Indices, torch.Tensor]] = {}

    def __call__(self, source: torch.Tensor, kept: Kept) -> torch.Tensor:
        """Gives what is kept in memory of its own, or the source's own memory where nothing is cut."""
        if not kept.blocks:
            return self._select(source.data, kept.axes)
        cut = source.new_empty(kept.shape)
        rows = cut
        for positions, axes in _runs(kept):
            inner = self._select(source.data, (positions,))
            rows[: len(positions)].copy_(self._select(inner, (None, *axes)))
            rows = rows[len(positions) :]
        return cut

    def _select(self, source: torch.Tensor, axes: KeptAxes) -> torch.Tensor:
        for axis, indices in enumerate(axes):
            if indices is not None:
                source = source.index_select(axis, self._on_device(indices, source.device))
        return source

    def _on_device(self, indices: Indices, device: torch.device) -> torch.Tensor:
        key = id(indices), device
        if key not in self._moved:
            self._moved[key] = indices, torch.from_numpy(indices).to(device)
        return self._moved[key][1]


def _runs(kept: Kept) -> Iterator[tuple[Indices, KeptAxes]]:
    """Neighbouring positions of the first axis of which the same is kept, with that."""
    begin = 0
    positions = kept.block_positions
    for _, run in groupby(kept.blocks, key=lambda axes: tuple(map(id, axes))):
        same = list(run)
        yield positions[begin : begin + len(same)], same[0]
        begin += len(same)
