"""A network's stand-in for trials: the same layers with values that hide nothing."""

from collections.abc import Iterator

import torch
from torch import nn

from prunebridge_shim.networks.child import build_child
from prunebridge_shim.subnet.child import stored_tensors

SEED = 20


def stand_in(network: nn.Module) -> nn.Module:
    """A copy of a network in float32, whose values are random and of the order of one for each output.

    Which channels are one does not depend on values, but to see it does: a branch that is scaled to nothing, attention
    that is uniform before training and the rounding of bfloat16 all hide what is wrong.
    """
    generator = torch.Generator().manual_seed(SEED)
    copy: nn.Module = build_child(network, dict(_random_values(network, generator)), {})
    return copy.float()


def _random_values(network: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in stored_tensors(network).items():
        is_norm = name.endswith(("running_mean", "running_var"))
        if tensor.is_floating_point() and (is_norm or isinstance(tensor, nn.Parameter)):
            values = torch.empty(tensor.shape)
            if name.endswith(("running_mean", "bias")):
                values.normal_(std=0.5, generator=generator)
            elif tensor.ndim in (0, 1):
                values.uniform_(0.5, 1.5, generator=generator)
            else:
                # He's scale, by which rectified layers give what they take.
                values.normal_(std=(2 / max(1, tensor[0].numel())) ** 0.5, generator=generator)
            yield name, values.to(tensor.device)
