"""Cuts an open model where it stands: its tensors become the child's one by one, so that memory never holds both."""

from collections import Counter
from typing import Any

import torch
from torch import nn

from prunebridge_shim.subnet.child import place, stored_tensors
from prunebridge_shim.subnet.gather import Gather
from prunebridge_shim.subnet.prepare import PreparedChild


def cut_model(prepared: PreparedChild) -> Any:
    """Moves the parent's tensors into the child, which it gives back. The parent is empty afterwards."""
    gather = Gather()
    left = Counter(id(one.source) for one in prepared.slices.values())
    for tensor in stored_tensors(prepared.parent).values():
        if id(tensor) not in left:
            _release(tensor)
    for name, one in prepared.slices.items():
        cut = gather(one.source, one.kept)
        if isinstance(one.source, nn.Parameter):
            cut = nn.Parameter(cut, requires_grad=False)
        for twin in prepared.names[name]:
            place(prepared.child, twin, cut)
        left[id(one.source)] -= 1
        if left[id(one.source)] == 0:
            _release(one.source)
    return prepared.child


def _release(tensor: torch.Tensor) -> None:
    tensor.data = tensor.data.new_empty(0)
