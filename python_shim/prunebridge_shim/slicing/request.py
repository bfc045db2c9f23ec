"""What to cut, and the checks on it that need no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.tensors import Batch, describe

Indices = NDArray[np.int64]
IndexSets = Mapping[str, Indices]


@dataclass(frozen=True)
class TensorPart:
    """What is cut from one tensor of the parent.

    Attributes:
        source_file: The parent's shard, or the .metadata of a torch_dist folder; empty where the parent is a live
            model.
        source_name: The tensor's name in the parent.
        dtype: Its element type, as safetensors spells it.
        shape: Its shape in the parent.
        axes: For each axis the id of an index set, or empty where the axis stays whole.
        blocks: Where the axes behind the first keep other positions at each of its positions, those axes' entries for
            each kept position of the first, in order. `axes` then has the first axis alone.
        index: In a torch_dist folder, the positions of the stored tensor's first axes that it lies at.
        shift: What is added to each element.
    """

    source_file: str
    source_name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...] = ()
    index: tuple[int, ...] = ()
    shift: float = 0.0


@dataclass(frozen=True)
class TensorSlice:
    """One tensor of the child: its name, and the parts that are joined along its first axis.

    Attributes:
        index: In a torch_dist save, where it lies along the outer axes of the tensor `name`.
        outer_shape: The sizes of these axes.
    """

    name: str
    parts: tuple[TensorPart, ...]
    index: tuple[int, ...] = ()
    outer_shape: tuple[int, ...] = ()

    @property
    def only_part(self) -> TensorPart:
        """The part of a tensor that has one, as all of a live model have; raises INVALID_REQUEST for another."""
        if len(self.parts) != 1:
            raise ShimError(
                Reason.INVALID_REQUEST, f"{self.name} has {len(self.parts)} parts where the parent is a live model"
            )
        return self.parts[0]


@dataclass(frozen=True)
class OutputShard:
    """One file to write: its name, its `__metadata__`, and its tensors in the order in which they are laid out."""

    file: str
    metadata: Mapping[str, str]
    tensors: tuple[TensorSlice, ...]


@dataclass(frozen=True)
class CommonEdit:
    """What becomes of a common.pt: new values of the training script's arguments, and entries to leave out."""

    arguments: Mapping[str, Any]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class TorchDistSave:
    """What a torch_dist save has besides its shards.

    Attributes:
        folder: The folder within the child that it lies in.
        empty_objects: Keys of objects that it has empty.
        common: What becomes of the parent's common.pt, which is carried as it is without.
    """

    folder: str
    empty_objects: tuple[str, ...] = ()
    common: CommonEdit | None = None


@dataclass(frozen=True)
class SliceJob:
    """A child to cut.

    Attributes:
        source_dir: The parent's folder.
        job_dir: The job's own folder, made where it is missing; the one above it exists.
        shards: What to write.
        sets: The index sets that the shards refer to.
        flush: Whether shards are on the disk in the end, or left to the operating system.
        sha256: Whether each gets a SHA-256, which takes reading it once more.
        torch_dist: Where the child is to be a torch_dist save: what that has besides shards.
    """

    source_dir: Path
    job_dir: Path
    shards: Sequence[OutputShard]
    sets: IndexSets
    flush: bool = True
    sha256: bool = False
    torch_dist: TorchDistSave | None = None


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


def _bad(message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_TENSOR, message, hint)
