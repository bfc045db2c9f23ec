"""What a model returns, as tensors outside of torch."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.tensors import Batch, HostTensor

ONLY = "output"
"""The name of what is returned as a tensor."""


def floating_tensors(returned: Any) -> Batch:
    """Gives every floating-point tensor of what forward returned, in F32 and its own shape.

    Raises:
        ShimError: INVALID_REQUEST where there is none.
    """
    found = {name: to_host("F32", tensor.float()) for name, tensor in named_tensors(returned).items()}
    if not found:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"forward returned {type(returned).__name__}, in which there is no floating-point tensor",
            "run it without asking for its output",
        )
    return found


def named_tensors(returned: Any) -> dict[str, torch.Tensor]:
    """Every floating-point tensor of what forward returned, as it is.

    Names are those in a mapping and positions in a tuple or a list; of what lies deeper, joined by dots. A tensor that
    is returned by itself is `output`.
    """
    return dict(_walk("", {ONLY: returned} if isinstance(returned, torch.Tensor) else returned))


def logits_of(returned: Any, axes: int = 3) -> torch.Tensor:
    """The logits of what a model returned, [B, S, V], or [B, C] of two axes; raises INVALID_REQUEST without."""
    logits = getattr(returned, "logits", None)
    if isinstance(logits, torch.Tensor) and logits.ndim == axes:
        return logits
    found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in named_tensors(returned).items())
    raise ShimError(
        Reason.INVALID_REQUEST,
        f"this takes logits with {axes} axes, and the model gives {found or 'no tensor'}",
        "ask for its output, or for a loss that its head was trained by",
    )


def to_host(dtype: str, values: torch.Tensor) -> HostTensor:
    """Brings a tensor home under the spelling of its type."""
    return HostTensor(dtype, values.detach().cpu().contiguous().numpy())


def _walk(name: str, returned: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(returned, torch.Tensor):
        if returned.is_floating_point():
            yield name, returned
        return
    within: Any = ()
    if isinstance(returned, Mapping):
        within = returned.items()
    elif isinstance(returned, (tuple, list)):
        within = enumerate(returned)
    for key, value in within:
        yield from _walk(f"{name}.{key}" if name else str(key), value)
