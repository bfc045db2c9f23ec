"""Hooks that accumulate reductions while a model runs, and are gone afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from prunebridge_shim.collect.experts import ROUTED, Routed, check_runs_experts, measured_experts
from prunebridge_shim.collect.places import find_places
from prunebridge_shim.collect.reductions import cosine_distance, mean_abs_square
from prunebridge_shim.errors import Reason, ShimError

RoutedKeys = Mapping[Routed, Sequence[str]]
"""The accumulators of one module's experts, by what they measure."""


@dataclass(frozen=True)
class HookPoint:
    """Where to measure what: `key` names the accumulator, `module` is a dotted path, as in `named_modules()`."""

    key: str
    module: str
    measure: Literal["mean_abs_square_in", "mean_abs_square_out", "cosine_distance"] | Routed


def find_modules(model: nn.Module, points: Sequence[HookPoint]) -> list[nn.Module]:
    """Looks up the module of each point.

    Raises:
        ShimError: UNKNOWN_MODULE with the nearest names, or INVALID_REQUEST where two points have one key, or a routed
            reduction's module runs no experts.
    """
    modules = find_places(model, points, "hook")
    for point, module in zip(points, modules, strict=True):
        if point.measure in ROUTED:
            check_runs_experts(module, point.module)
    return modules


def check_cosine(point: HookPoint, taken: torch.Tensor, given: torch.Tensor) -> None:
    """Raises BAD_TENSOR where a module does not give as many channels as it takes: they have no cosine."""
    if taken.shape != given.shape:
        raise ShimError(
            Reason.BAD_TENSOR,
            f"hook {point.key}: {point.module} takes {list(taken.shape)} and gives {list(given.shape)}, which have no"
            " cosine",
            "measure a module whose output is as wide as its input, such as a whole layer",
        )


def routed_keys(points: Sequence[HookPoint], modules: Sequence[nn.Module]) -> Mapping[nn.Module, RoutedKeys]:
    """The accumulators of each module's experts, of all points that measure such."""
    found: dict[nn.Module, dict[Routed, list[str]]] = {}
    for point, module in zip(points, modules, strict=True):
        for measure in ROUTED:
            if point.measure == measure:
                found.setdefault(module, {}).setdefault(measure, []).append(point.key)
    return found


def batch_shape(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Size:
    """The shape [B, S] of the batch that a decoder is called with; raises BAD_DATA for a call without one."""
    for value in (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds")):
        if isinstance(value, torch.Tensor) and value.ndim >= 2:  # noqa: PLR2004 [B, S] or [B, S, C]
            return value.shape[:2]
    raise ShimError(Reason.BAD_DATA, "the model is run without input_ids [batch, sequence]")


@contextmanager
def attached(
    points: Sequence[HookPoint], modules: Sequence[nn.Module], decoder: nn.Module
) -> Iterator[dict[str, torch.Tensor]]:
    """Attaches hooks for as long as the context lasts; gives the accumulators by key, which fill as the model runs.

    Args:
        points: What to measure.
        modules: The module of each point.
        decoder: The module that runs once for each batch, and takes it.
    """
    hooks = _Hooks()
    with ExitStack() as stack:
        stack.callback(decoder.register_forward_pre_hook(hooks.see_batch, with_kwargs=True).remove)
        for point, module in zip(points, modules, strict=True):
            if point.measure not in ROUTED:
                for handle in hooks.attach(point, module):
                    stack.callback(handle.remove)
        for module, keys in routed_keys(points, modules).items():
            stack.enter_context(hooks.measured_experts(module, keys))
        yield hooks.sums


class _Hooks:
    """What hooks share: the accumulators, and the shape of the batch that is run."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self._batch_BS = torch.Size()

    def see_batch(self, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._batch_BS = batch_shape(args, kwargs)

    def attach(self, point: HookPoint, module: nn.Module) -> list[Any]:
        def on_input(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self._add(point.key, mean_abs_square(self._activation(point, "input", args)))

        def on_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self._add(point.key, mean_abs_square(self._activation(point, "output", output)))

        if point.measure == "mean_abs_square_in":
            return [module.register_forward_pre_hook(on_input)]
        if point.measure == "mean_abs_square_out":
            return [module.register_forward_hook(on_output)]
        return self._attach_cosine(point, module)

    def measured_experts(self, module: nn.Module, keys: RoutedKeys) -> AbstractContextManager[None]:
        def add(measure: Routed, value: torch.Tensor) -> None:
            for key in keys[measure]:
                self._add(key, value)

        return measured_experts(module, keys, add)

    def _attach_cosine(self, point: HookPoint, module: nn.Module) -> list[Any]:
        version = 0

        def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
            nonlocal version
            version = self._activation(point, "input", args)._version  # noqa: SLF001 torch has no public name for it

        def after(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            x_BSC = self._activation(point, "input", args)
            if x_BSC._version != version:  # noqa: SLF001
                raise ShimError(
                    Reason.BAD_TENSOR, f"{point.module} changes its input in place; its cosine cannot be taken"
                )
            out_BSC = self._activation(point, "output", output)
            check_cosine(point, x_BSC, out_BSC)
            self._add(point.key, cosine_distance(x_BSC, out_BSC))

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _add(self, key: str, value: torch.Tensor) -> None:
        self.sums[key] = self.sums[key] + value if key in self.sums else value

    def _activation(self, point: HookPoint, side: str, value: Any) -> torch.Tensor:
        if isinstance(value, tuple):
            value = value[0] if value else None
        if isinstance(value, torch.Tensor):
            if value.ndim == 3:  # noqa: PLR2004 [B, S, C]
                return value
            if value.ndim == 2 and value.shape[0] == self._batch_BS.numel():  # noqa: PLR2004 [B * S, C]
                sequences: torch.Tensor = value.unflatten(0, self._batch_BS)
                return sequences
        found = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ShimError(
            Reason.BAD_TENSOR,
            f"the {side} of {point.module} is {found}; a hook needs a tensor [batch, sequence, channel], or one"
            " [tokens, channel] of all tokens of the batch",
        )
