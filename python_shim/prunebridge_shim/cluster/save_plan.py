"""What a child that is saved from a job's live weights is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.kept import Kept
from prunebridge_shim.slicing.layout import ShardLayout, lay_out
from prunebridge_shim.slicing.request import IndexSets, OutputShard, TensorPart
from prunebridge_shim.slicing.stored import Stored


@dataclass(frozen=True)
class SaveJob:
    """A child to save; the fields are those of a `SliceJob`, without a parent's folder."""

    job_dir: Path
    shards: Sequence[OutputShard]
    sets: IndexSets
    flush: bool = True
    sha256: bool = False


@dataclass(frozen=True)
class PlacedPart:
    """A part of the child.

    Attributes:
        number: Its place among all parts.
        shard: The number of its shard.
        offset: Where its bytes begin, behind the shard's header.
        source: What it is cut from.
        kept: What is kept of that.
        item_bytes: Bytes of an element.
    """

    number: int
    shard: int
    offset: int
    source: TensorPart
    kept: Kept
    item_bytes: int

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one position of the first axis."""
        return math.prod(self.kept.shape[1:]) * self.item_bytes


class _Unseen:
    """The job's model, of which each rank holds some: until the ranks compare, its tensors are as the request says."""

    files = ()
    identity = None

    def find(self, part: TensorPart) -> Stored:
        """The tensor that a part is cut from."""
        return Stored(part.dtype, part.shape, self.files, _unread)


def _unread(*_: Any) -> NoReturn:
    raise AssertionError("live weights are in no file")


def lay_out_shards(job: SaveJob) -> tuple[list[ShardLayout], list[PlacedPart]]:
    """Lays shards out as a slicing would, and places their parts behind each other.

    Raises:
        ShimError: as `layout.lay_out`; INVALID_REQUEST where two shards have one name.
    """
    names = [shard.file for shard in job.shards]
    if len(set(names)) < len(names):
        raise ShimError(Reason.INVALID_REQUEST, f"two shards have one name: {', '.join(sorted(names))}")
    layouts: list[ShardLayout] = []
    placed: list[PlacedPart] = []
    for shard in job.shards:
        parts = [part for tensor in shard.tensors for part in tensor.parts]
        layout = lay_out(shard, dict.fromkeys((part.source_file for part in parts), _Unseen()), job.sets)
        offset = 0
        for part, cut in zip(parts, layout.blocks[0].cuts, strict=True):
            placed.append(PlacedPart(len(placed), len(layouts), offset, part, cut.kept, cut.item_bytes))
            offset += math.prod(cut.kept.shape) * cut.item_bytes
        layouts.append(layout)
    return layouts, placed
