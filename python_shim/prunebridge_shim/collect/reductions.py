"""Activations reduced where they are. B: batch, S: sequence, C: channel.

Formulas: Minitron, arXiv 2407.14679 section 2, with the sample as one sequence.
"""

from collections.abc import Iterator

import torch

SLAB_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Elements of an activation that a reduction turns to float32 at a time: no activation is ever copied whole."""

EPSILON = 1e-8
"""The floor of a norm, as in torch's cosine_similarity."""


def mean_abs_square(x_BSC: torch.Tensor) -> torch.Tensor:
    """Sums over samples the square of the mean over S of |x|. Gives F32 [C]."""
    mean_BC = sum_abs(x_BSC).div_(x_BSC.shape[1])
    return mean_BC.square_().sum(0)


def sum_abs(x_BSC: torch.Tensor) -> torch.Tensor:
    """Sums |x| over S in float32. Gives F32 [B, C]."""
    if x_BSC.device.type != "cpu":
        norm_BC: torch.Tensor = torch.linalg.vector_norm(x_BSC, ord=1, dim=1, dtype=torch.float32)
        return norm_BC
    # The same in slabs: torch's CPU kernel for a norm over any axis but the last is scalar, and 6 times slower.
    batch, _, channels = x_BSC.shape
    total_BC = torch.zeros(batch, channels)
    for slab in x_BSC.split(_slab_rows(x_BSC, batch), dim=1):
        total_BC += slab.abs().sum(1, dtype=torch.float32)
    return total_BC


def cosine_distance(in_BSC: torch.Tensor, out_BSC: torch.Tensor) -> torch.Tensor:
    """One less the mean over tokens of the cosine of in and out, in float32. Gives F32 []."""
    total = torch.zeros((), device=in_BSC.device)
    for a, b in _token_slabs(in_BSC, out_BSC):
        lengths = torch.linalg.vector_norm(a, dim=-1).clamp_min_(EPSILON)
        lengths *= torch.linalg.vector_norm(b, dim=-1).clamp_min_(EPSILON)
        total += (torch.linalg.vecdot(a, b) / lengths).sum()
    return 1 - total / (in_BSC.shape[0] * in_BSC.shape[1])


def sum_products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sums a * b over all axes but the last, in float32 or finer, slab by slab. Gives F32 [C]."""
    channels = a.shape[-1]
    rows = _slab_rows(a, 1)
    total_C = torch.zeros(channels, device=a.device)
    pairs = zip(a.reshape(-1, channels).split(rows), b.reshape(-1, channels).split(rows), strict=True)
    for x, y in pairs:
        total_C += (_at_least_float32(x) * _at_least_float32(y)).sum(0)
    return total_C


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _token_slabs(in_BSC: torch.Tensor, out_BSC: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rows = _slab_rows(in_BSC, 1)
    pairs = zip(in_BSC.flatten(0, 1).split(rows), out_BSC.flatten(0, 1).split(rows), strict=True)
    for a, b in pairs:
        yield a.float(), b.float()


def _slab_rows(x_BSC: torch.Tensor, together: int) -> int:
    elements = SLAB_ELEMENTS.get(x_BSC.device.type, SLAB_ELEMENTS["cuda"])
    return max(1, elements // (together * x_BSC.shape[-1]))
