"""How experts are run."""

from typing import Any

ALIGNMENT_BYTES = 16
"""torch's grouped matrix product takes only rows of whole multiples."""


def run_experts_of_any_width(model: Any) -> None:
    """Has experts run one after the other where their widths are none that the faster way takes.

    transformers 5 runs all experts of a layer in one grouped product, which fails on rows that are not aligned: pruning
    makes such widths.
    """
    if hasattr(model, "set_experts_implementation") and any(_is_odd(module) for module in model.modules()):
        model.set_experts_implementation("eager")


def _is_odd(module: Any) -> bool:
    # What transformers' decorator for packed experts sets.
    if not hasattr(module, "is_transposed"):
        return False
    packed = [tensor for tensor in module.parameters(recurse=False) if tensor.ndim == 3]  # noqa: PLR2004 [E, out, in]
    return any(tensor.shape[-1] * tensor.element_size() % ALIGNMENT_BYTES for tensor in packed)
