"""Masks of ones on what modules take or give, whose gradients tell what each unit is worth to a loss.

U: units, C: positions of the last axis, N: those of all axes before it. Formula: Michel, Levy and Neubig, "Are sixteen
heads really better than one", arXiv 1905.10650, with squares in the place of absolute values.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from prunebridge_shim.collect.reductions import sum_products
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.tensors import HostTensor

Root = tuple[torch.Tensor, torch.Tensor | None]
"""A tensor that backward begins from, and its gradient: None for a loss."""


@dataclass(frozen=True)
class Mask:
    """A mask of `units` ones on the last axis of a tensor, each over as many positions in a row.

    Attributes:
        key: Names the sums.
        module: A dotted path, as in `named_modules()`.
        side: The module's first positional argument, or what it returns; of a tuple the first element.
        units: How many ones.
    """

    key: str
    module: str
    side: Literal["input", "output"]
    units: int


@contextmanager
def masked(masks: Sequence[Mask], modules: Sequence[nn.Module], device: torch.device) -> Iterator["MaskSums"]:
    """Puts masks on a model for as long as the context lasts; gives the sums of their squared gradients.

    Args:
        masks: At least one.
        modules: The module of each mask.
        device: Where the model is.
    """
    sums = MaskSums(masks, device)
    with ExitStack() as stack:
        for mask, ones_U, module in zip(masks, sums.ones, modules, strict=True):
            stack.callback(sums.attach(mask, ones_U, module).remove)
        yield sums


class MaskSums:
    """Masks in their order, and what was summed over batches so far."""

    def __init__(self, masks: Sequence[Mask], device: torch.device) -> None:
        self._masks = masks
        self._ran: set[str] = set()
        self.ones = [torch.ones(mask.units, device=device, requires_grad=True) for mask in masks]
        # Of all masks in a row.
        self._sums = torch.zeros(sum(mask.units for mask in masks), device=device)

    def attach(self, mask: Mask, ones_U: torch.Tensor, module: nn.Module) -> Any:
        """Puts a mask on a module; gives the handle that takes it off."""

        def on_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return self._mask_first(mask, ones_U, args)

        def on_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            if isinstance(output, tuple):
                return self._mask_first(mask, ones_U, output)
            return self._mask(mask, ones_U, output)

        if mask.side == "input":
            return module.register_forward_pre_hook(on_input)
        return module.register_forward_hook(on_output)

    def add(self, roots: Sequence[Root]) -> None:
        """Runs backward and adds the squares of masks' gradients; one that is not finite stays so in the sums.

        Args:
            roots: At least one of which has a graph that leads to a mask.
        """
        outputs, gradients = zip(*(root for root in roots if root[0].requires_grad), strict=True)
        found = torch.autograd.grad(outputs, self.ones, gradients, allow_unused=True)
        rows = [torch.zeros_like(ones_U) if row is None else row for ones_U, row in zip(self.ones, found, strict=True)]
        self._sums += torch.cat(rows).square_()

    def find_infinite(self) -> Mask | None:
        """The first mask whose sums are not all finite."""
        if self._sums.isfinite().all():
            return None
        split = self._sums.split([mask.units for mask in self._masks])
        return next(mask for mask, sums_U in zip(self._masks, split, strict=True) if not sums_U.isfinite().all())

    def check_ran(self) -> None:
        """Raises UNKNOWN_MODULE for a mask on what the model never ran."""
        for mask in self._masks:
            if mask.key not in self._ran:
                raise ShimError(
                    Reason.UNKNOWN_MODULE, f"mask {mask.key}: the model never runs its module {mask.module}"
                )

    def bring_home(self) -> Mapping[str, HostTensor]:
        """Fetches the sums in one copy, F32 [U] by key."""
        parts = self._sums.cpu().split([mask.units for mask in self._masks])
        return {mask.key: HostTensor("F32", part.numpy()) for mask, part in zip(self._masks, parts, strict=True)}

    def _mask_first(self, mask: Mask, ones_U: torch.Tensor, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._mask(mask, ones_U, values[0] if values else None), *values[1:])

    def _mask(self, mask: Mask, ones_U: torch.Tensor, x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim == 0:
            found = "nothing by position" if x is None else type(x).__name__
            if isinstance(x, torch.Tensor):
                found = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
            raise _bad(mask, f"is {found}; a mask needs a floating-point tensor")
        if x.shape[-1] % mask.units:
            raise _bad(mask, f"is {list(x.shape)}, whose last axis is no multiple of the mask's {mask.units} units")
        self._ran.add(mask.key)
        return _Masked.apply(x, ones_U)  # type: ignore[no-untyped-call]


class _Masked(torch.autograd.Function):
    """Multiplies by ones, which changes nothing; the ones' gradient is summed in float32 whatever the dtype."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ones_U: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.units = len(ones_U)
        # A copy, so that whoever changes it in place leaves what is saved.
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        (x,) = ctx.saved_tensors
        sums_U = sum_products(x, gradient).view(ctx.units, -1).sum(-1)
        return gradient if ctx.needs_input_grad[0] else None, sums_U


def _bad(mask: Mask, what: str) -> ShimError:
    return ShimError(Reason.BAD_TENSOR, f"mask {mask.key}: the {mask.side} of {mask.module} {what}")
