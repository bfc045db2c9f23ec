"""Gathers what is kept of live tensors."""

import torch

from prunebridge_shim.slicing.kept import Kept, KeptAxes
from prunebridge_shim.slicing.request import Indices


class Gather:
    """Cuts tensors of one device, to which each index set is moved once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # With the array itself, since an id is only an array's for as long as that lives.
        self._moved: dict[int, tuple[Indices, torch.Tensor]] = {}

    def __call__(self, source: torch.Tensor, kept: Kept) -> torch.Tensor:
        """Gives what is kept in memory of its own, or the source's own memory where nothing is cut."""
        if not kept.blocks:
            return self._select(source.data, kept.axes)
        cut = source.new_empty(kept.shape)
        for out, position, axes in zip(cut, kept.block_positions.tolist(), kept.blocks, strict=True):
            out.copy_(self._select(source.data[position], axes))
        return cut

    def _select(self, source: torch.Tensor, axes: KeptAxes) -> torch.Tensor:
        for axis, indices in enumerate(axes):
            if indices is not None:
                source = source.index_select(axis, self._on_device(indices))
        return source

    def _on_device(self, indices: Indices) -> torch.Tensor:
        if id(indices) not in self._moved:
            self._moved[id(indices)] = indices, torch.from_numpy(indices).to(self._device)
        return self._moved[id(indices)][1]
