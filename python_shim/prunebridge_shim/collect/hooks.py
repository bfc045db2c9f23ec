"""Hooks that accumulate reductions while a model runs, and are gone afterwards."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from prunebridge_shim.collect.reductions import cosine_distance, mean_abs_square
from prunebridge_shim.errors import Reason, ShimError


@dataclass(frozen=True)
class HookPoint:
    """Where to measure what: `key` names the accumulator, `module` is a dotted path, as in `named_modules()`."""

    key: str
    module: str
    measure: Literal["mean_abs_square_in", "mean_abs_square_out", "cosine_distance"]


def find_modules(model: nn.Module, points: Sequence[HookPoint]) -> list[nn.Module]:
    """Looks up the module of each point.

    Raises:
        ShimError: UNKNOWN_MODULE with the nearest names, or INVALID_REQUEST where two points have one key.
    """
    modules = dict(model.named_modules())
    keys = set()
    for point in points:
        if point.module not in modules:
            nearest = difflib.get_close_matches(point.module, modules, n=3)
            hint = f"nearest are {', '.join(nearest)}" if nearest else ""
            raise ShimError(Reason.UNKNOWN_MODULE, f"hook {point.key}: the model has no module {point.module!r}", hint)
        if point.key in keys:
            raise ShimError(Reason.INVALID_REQUEST, f"two hooks have the key {point.key!r}")
        keys.add(point.key)
    return [modules[point.module] for point in points]


@contextmanager
def attached(points: Sequence[HookPoint], modules: Sequence[nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Attaches hooks for as long as the context lasts; gives the accumulators by key, which fill as the model runs."""
    sums: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        for point, module in zip(points, modules, strict=True):
            for handle in _attach(point, module, sums):
                stack.callback(handle.remove)
        yield sums


def _attach(point: HookPoint, module: nn.Module, sums: dict[str, torch.Tensor]) -> list[Any]:
    def add(value: torch.Tensor) -> None:
        if point.key in sums:
            sums[point.key] += value
        else:
            sums[point.key] = value

    def on_input(_module: nn.Module, args: tuple[Any, ...]) -> None:
        add(mean_abs_square(_activation(point, "input", args)))

    def on_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        add(mean_abs_square(_activation(point, "output", output)))

    if point.measure == "mean_abs_square_in":
        return [module.register_forward_pre_hook(on_input)]
    if point.measure == "mean_abs_square_out":
        return [module.register_forward_hook(on_output)]
    return _attach_cosine(point, module, add)


def _attach_cosine(point: HookPoint, module: nn.Module, add: Any) -> list[Any]:
    version = 0

    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal version
        version = _activation(point, "input", args)._version  # noqa: SLF001 torch has no public name for it

    def after(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        x_BSC = _activation(point, "input", args)
        if x_BSC._version != version:  # noqa: SLF001
            raise ShimError(Reason.BAD_TENSOR, f"{point.module} changes its input in place; its cosine cannot be taken")
        add(cosine_distance(x_BSC, _activation(point, "output", output)))

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def _activation(point: HookPoint, side: str, value: Any) -> torch.Tensor:
    if isinstance(value, tuple):
        value = value[0] if value else None
    if isinstance(value, torch.Tensor) and value.ndim == 3:  # noqa: PLR2004 [B, S, C]
        return value
    found = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
    raise ShimError(
        Reason.BAD_TENSOR, f"the {side} of {point.module} is {found}; a hook needs a tensor [batch, sequence, channel]"
    )
