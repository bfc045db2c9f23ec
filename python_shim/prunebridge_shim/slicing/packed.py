"""Tensors whose elements share bytes, seen as tensors of the smallest whole bytes: pairs of F4, fours of F6."""

import math

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.kept import Kept, KeptAxes
from prunebridge_shim.slicing.request import Indices
from prunebridge_shim.tensors import ITEM_BITS


def unit_of(dtype: str) -> tuple[int, int]:
    """How many elements make the smallest whole bytes, and how many bytes they are: (1, 2) for BF16, (2, 1) for F4."""
    bits = ITEM_BITS[dtype]
    unit = math.lcm(bits, 8)
    return unit // bits, unit // 8


def in_units(kept: Kept, dtype: str, name: str) -> Kept:
    """What is kept of a tensor, in units instead of elements along its last axis.

    Raises:
        ShimError: BAD_TENSOR where a cut goes through a unit.
    """
    elements, _ = unit_of(dtype)
    if elements == 1:
        return kept
    if kept.whole:
        return Kept((math.prod(kept.source_shape) // elements,), (None,))
    *outer, last = kept.source_shape
    if last % elements:
        raise _torn(name, dtype, f"its rows of {last} elements end within a byte")
    shape = (*outer, last // elements)
    if kept.blocks and len(shape) > 1:
        return Kept(shape, kept.axes, tuple(_pack_last(axes, elements, dtype, name) for axes in kept.blocks))
    return Kept(shape, _pack_last(kept.axes, elements, dtype, name))


def _pack_last(axes: KeptAxes, elements: int, dtype: str, name: str) -> KeptAxes:
    *outer, last = axes
    return (*outer, None if last is None else _pack(last, elements, dtype, name))


def _pack(indices: Indices, elements: int, dtype: str, name: str) -> Indices:
    first = indices[::elements]
    whole = len(indices) % elements == 0 and not (first % elements).any()
    if not whole or any((indices[step::elements] != first + step).any() for step in range(1, elements)):
        raise _torn(name, dtype, f"a cut goes through {elements} elements that share bytes")
    return first // elements


def _torn(name: str, dtype: str, what: str) -> ShimError:
    return ShimError(
        Reason.BAD_TENSOR,
        f"{name} is packed {dtype}, and {what}",
        f"keep whole groups of {unit_of(dtype)[0]} along its last axis, or convert the checkpoint first",
    )
