"""Finds where hook points lie on the ranks."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention
from torch import nn

from prunebridge_shim.cluster.layout import Layout, split_axis
from prunebridge_shim.cluster.norms import FUSED_WITH
from prunebridge_shim.collect.experts import ROUTED
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.errors import Reason, ShimError

Norm = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Held:
    """A hook point on a rank that holds its module, or a part of it.

    Attributes:
        point: What is measured.
        module: Where.
        norm: What makes the activation that is wanted of the module's input.
        splits_channels: Whether each tensor parallel rank has channels of its own.
    """

    point: HookPoint
    module: nn.Module
    norm: Norm | None = None
    splits_channels: bool = False


def hold(points: Sequence[HookPoint], modules: Mapping[str, nn.Module], layout: Layout) -> list[Held]:
    """Finds the points whose modules this rank holds.

    Raises:
        ShimError: INVALID_REQUEST for two points of one key, and for a module on which a measure cannot be taken.
    """
    keys = [point.key for point in points]
    for key in keys:
        if keys.count(key) > 1:
            raise ShimError(Reason.INVALID_REQUEST, f"two hooks have the key {key!r}")
    return [_hold(point, modules, layout) for point in points if point.module in modules]


def nearest_names(point: HookPoint, names: Iterable[str]) -> list[str]:
    """Names that are much like that of a point's module, nearest first."""
    return difflib.get_close_matches(point.module, list(names), n=3)


def _hold(point: HookPoint, modules: Mapping[str, nn.Module], layout: Layout) -> Held:
    module = modules[point.module]
    if point.measure in ROUTED:
        _check_runs_experts(point, module)
        return Held(point, module, splits_channels=point.measure == "routed_mean_abs_square")
    if point.measure == "mean_abs_square_out" and type(module).__name__ == "IdentityOp":
        fused = _fused_with(point, modules)
        return Held(point, fused, norm=_norm_of(fused))
    split = split_axis(module)
    if point.measure == "mean_abs_square_out" and split == 0 and layout.tensor.size > 1:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{point.module} gives each tensor parallel rank parts of several blocks, which cannot be put together",
            "measure what the next projection takes",
        )
    return Held(point, module, splits_channels=point.measure == "mean_abs_square_in" and split == 1)


def _check_runs_experts(point: HookPoint, module: Any) -> None:
    if not hasattr(module, "num_local_experts") or not (
        hasattr(module, "local_experts") or hasattr(module, "linear_fc2")
    ):
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{point.module} is {type(module).__name__}, within which routed reductions cannot be taken",
            "they go to a SequentialMLP or a TEGroupedMLP, which Megatron-Core calls `mlp.experts`",
        )


def _fused_with(point: HookPoint, modules: Mapping[str, nn.Module]) -> Any:
    layer, _, name = point.module.rpartition(".")
    module = modules.get(f"{layer}.{FUSED_WITH.get(name)}")
    if not isinstance(getattr(module, "layer_norm_weight", None), torch.Tensor):
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{point.module} does nothing, and no projection behind it has its norm",
            "leave it out: the layer has no such norm",
        )
    return module


def _norm_of(fused: Any) -> Norm:
    """The norm of a projection, under the names that Transformer Engine gives its parts."""

    def norm(x: torch.Tensor) -> torch.Tensor:
        weight = fused.layer_norm_weight + 1 if fused.zero_centered_gamma else fused.layer_norm_weight
        if fused.normalization == "RMSNorm":
            return F.rms_norm(x, weight.shape, weight.to(x.dtype), fused.eps)
        return F.layer_norm(x, weight.shape, weight.to(x.dtype), fused.layer_norm_bias.to(x.dtype), fused.eps)

    return norm
