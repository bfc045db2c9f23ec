"""What to cut, and the checks on it that need no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.tensors import Batch, describe

Indices = NDArray[np.int64]
IndexSets = Mapping[str, Indices]


@dataclass(frozen=True)
class TensorSlice:
    """One tensor of the child, cut from one tensor of the parent.

    Attributes:
        name: The tensor's name in the child.
        source_file: The parent's shard; empty where the parent is a live model.
        source_name: The tensor's name in the parent.
        dtype: Its element type, as safetensors spells it.
        shape: Its shape in the parent.
        axes: For each axis the id of an index set, or empty where the axis stays whole.
    """

    name: str
    source_file: str
    source_name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]


@dataclass(frozen=True)
class OutputShard:
    """One file to write: its name, its `__metadata__`, and its tensors in the order in which they are laid out."""

    file: str
    metadata: Mapping[str, str]
    tensors: tuple[TensorSlice, ...]


def index_sets_of(batch: Batch) -> dict[str, Indices]:
    """Takes the index sets from a batch: one I64 tensor [kept] for each id.

    Raises:
        ShimError: BAD_TENSOR where one is of another type, negative, or not strictly ascending.
    """
    return {name: _checked(name, tensor.dtype, tensor.array) for name, tensor in batch.items()}


def _checked(name: str, dtype: str, array: Indices) -> Indices:
    if dtype != "I64" or array.ndim != 1:
        raise _bad(f"index set {name!r} is {describe(dtype, array.shape)}; an index set is an I64 vector")
    falls = np.flatnonzero(array[1:] <= array[:-1])
    if falls.size:
        at = int(falls[0])
        raise _bad(
            f"index set {name!r} is not in ascending order: {array[at + 1]} follows {array[at]} at position {at + 1}",
            "send each kept position once, in its original order",
        )
    if array.size and array[0] < 0:
        raise _bad(f"index set {name!r} holds the negative position {array[0]}; positions count from 0")
    return array


def kept_axes(tensor: TensorSlice, sets: IndexSets) -> tuple[Indices | None, ...]:
    """Looks up the index set of each axis, None where the axis stays whole.

    Raises:
        ShimError: INVALID_REQUEST where a set was not sent, BAD_TENSOR where one does not fit its axis.
    """
    if len(tensor.axes) != len(tensor.shape):
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{tensor.name} has {len(tensor.axes)} axis entries for the {len(tensor.shape)} axes of its source",
        )
    return tuple(_kept(tensor, axis, size, sets) for axis, size in enumerate(tensor.shape))


def _kept(tensor: TensorSlice, axis: int, size: int, sets: IndexSets) -> Indices | None:
    name = tensor.axes[axis]
    if not name:
        return None
    if name not in sets:
        raise ShimError(
            Reason.INVALID_REQUEST, f"axis {axis} of {tensor.name} names index set {name!r}, which was not sent"
        )
    kept = sets[name]
    if kept.size and kept[-1] >= size:
        raise _bad(
            f"index set {name!r} keeps position {kept[-1]} of axis {axis} of {tensor.source_name}, which has {size}"
        )
    return kept


def kept_shape(shape: Sequence[int], kept: Sequence[Indices | None]) -> tuple[int, ...]:
    """The shape after the cut."""
    return tuple(size if indices is None else len(indices) for size, indices in zip(shape, kept, strict=True))


def _bad(message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_TENSOR, message, hint)
