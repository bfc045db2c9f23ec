"""Adds a constant to elements, as when norms are stored around one or around zero."""

import math

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.gathering import Bytes
from prunebridge_shim.slicing.request import TensorPart

_NUMPY_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_BF16_FRACTION_BITS = 7
_BF16_LEAST_EXPONENT = -126


def check_shift(part: TensorPart) -> None:
    """Raises BAD_TENSOR where a part is to be shifted by no number, or is of an element type that cannot be."""
    if part.shift and (part.dtype not in {*_NUMPY_FLOATS, "BF16"} or not math.isfinite(part.shift)):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{part.source_name} is {part.dtype}, and is to be shifted by {part.shift}",
            f"a finite number can be added to {', '.join(_NUMPY_FLOATS)} and BF16",
        )


def shift_items(block: Bytes, dtype: str, shift: float) -> Bytes:
    """Adds to each element in float64; the sum is rounded once, to the nearest even of the element type."""
    with np.errstate(all="ignore"):
        if dtype != "BF16":
            items = block.view(_NUMPY_FLOATS[dtype])
            return (items.astype(np.float64) + shift).astype(items.dtype).view(np.uint8)
        items = (block.view("<u2").astype("<u4") << 16).view("<f4")
        return _round_to_bf16(items.astype(np.float64) + shift).view(np.uint8)


def _round_to_bf16(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    _, exponents = np.frexp(values)
    quantum = np.ldexp(1.0, np.maximum(exponents - 1, _BF16_LEAST_EXPONENT) - _BF16_FRACTION_BITS)
    # What is a multiple of its quantum is a float32 whose lower half is zero.
    rounded = np.where(np.isfinite(values), np.rint(values / quantum) * quantum, values)
    return (rounded.astype("<f4").view("<u4") >> 16).astype("<u2")
