"""Lays out a child as a save in Megatron's torch_dist format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.layout import Block, CutTensor, ShardLayout, cut_tensors
from prunebridge_shim.slicing.parents import Parent
from prunebridge_shim.slicing.request import IndexSets, OutputShard
from prunebridge_shim.slicing.sources import plain_name
from prunebridge_shim.slicing.torch_dist_frame import Frame, archive_nothing
from prunebridge_shim.slicing.torch_dist_names import METADATA, STORAGE_INFO
from prunebridge_shim.slicing.torch_dist_pickling import Made, named, write_pickle
from prunebridge_shim.slicing.torch_dist_records import Box, DescribedTensor, size_of, tensor_metadata
from prunebridge_shim.tensors import describe

BACKEND_FILE = "metadata.json"
BACKEND = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


@dataclass
class Save:
    """What a save holds, and where: what its .metadata says.

    Attributes:
        tensors: Its tensors by their keys.
        objects: Keys of its empty objects.
    """

    tensors: dict[str, DescribedTensor] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)
    _places: dict[Made, Made] = field(default_factory=dict)

    def place(self, key: str, offsets: tuple[int, ...] | None, place: Mapping[str, object]) -> None:
        """Says in which file the archive of a tensor's box or of an object lies, at which byte, and its length."""
        index = named(f"{METADATA}.MetadataIndex").holding(fqn=key, offset=size_of(offsets), index=None)
        self._places[index] = named(STORAGE_INFO).holding(**place)

    def metadata(self) -> bytes:
        """The content of .metadata."""
        nothing = named(f"{METADATA}.BytesStorageMetadata").holding()
        tensors = {key: tensor_metadata(tensor) for key, tensor in self.tensors.items()}
        return write_pickle(
            named(f"{METADATA}.Metadata").holding(
                state_dict_metadata=tensors | dict.fromkeys(self.objects, nothing),
                planner_data=None,
                storage_data=self._places,
                storage_meta=None,
                version="1.0.0",
            )
        )


def lay_out_save(
    shards: Sequence[OutputShard], parents: Mapping[str, Parent], sets: IndexSets, objects: Sequence[str]
) -> tuple[list[ShardLayout], Save]:
    """Checks the tensors of all shards as `lay_out` does, and places them; empty objects go into the last.

    Raises:
        ShimError: BAD_TENSOR or INVALID_REQUEST, also where tensors of one key do not fill it once.
    """
    save = Save()
    layouts = []
    for shard in shards:
        tensors = cut_tensors(shard, parents, sets)
        layouts.append(_lay_out(shard, tensors, save, objects if shard is shards[-1] else ()))
    for key, tensor in save.tensors.items():
        _check_filled(key, tensor)
    return layouts, save


@dataclass(frozen=True)
class _Archive:
    """The archive of a tensor's box, and where in its file it begins."""

    begin: int
    frame: Frame
    tensor: CutTensor

    @property
    def data_begin(self) -> int:
        return self.begin + len(self.frame.head)

    @property
    def data_end(self) -> int:
        return self.data_begin + self.tensor.bytes


@dataclass(frozen=True)
class _Archives:
    """All archives of a file: those of tensors, and behind these those of empty objects."""

    of_tensors: Sequence[_Archive]
    of_objects: bytes

    def around(self, crcs: Sequence[int]) -> list[tuple[int, bytes]]:
        """What lies around the elements but for the first archive's head, which counts as the file's header."""
        first, *others = self.of_tensors
        end = self.of_tensors[-1].begin + self.of_tensors[-1].frame.size
        stretches = [(archive.begin, archive.frame.head) for archive in others]
        stretches += [
            (archive.data_end, archive.frame.tail(crc)) for archive, crc in zip(self.of_tensors, crcs, strict=True)
        ]
        if self.of_objects:
            stretches.append((end, self.of_objects))
        return [(begin - len(first.frame.head), data) for begin, data in stretches]


def _lay_out(shard: OutputShard, tensors: Sequence[CutTensor], save: Save, objects: Sequence[str]) -> ShardLayout:
    file = plain_name(shard.file)
    archives = []
    end = 0
    for tensor in tensors:
        box = _describe(tensor, save)
        frame = Frame(tensor.dtype, box.sizes)
        save.place(tensor.slice.name, box.offsets, {"relative_path": file, "offset": end, "length": frame.size})
        archives.append(_Archive(end, frame, tensor))
        end += frame.size
    nothing = archive_nothing()
    for key in objects:
        save.objects.append(key)
        save.place(key, None, {"relative_path": file, "offset": end, "length": len(nothing)})
        end += len(nothing)
    header = archives[0].frame.head
    blocks = tuple(Block(archive.data_begin - len(header), archive.tensor.cuts) for archive in archives)
    return ShardLayout(file, header, blocks, end, _Archives(archives, nothing * len(objects)).around)


def _describe(tensor: CutTensor, save: Save) -> Box:
    """Takes a box of a tensor in; raises INVALID_REQUEST where it is none of those that were there before."""
    key, index, outer = tensor.slice.name, tensor.slice.index, tensor.slice.outer_shape
    shape = (*outer, *tensor.shape)
    described = save.tensors.setdefault(key, DescribedTensor(tensor.dtype, shape))
    box = Box((*index, *(0 for _ in tensor.shape)), (*(1 for _ in outer), *tensor.shape))
    within = len(index) == len(outer) and all(at < size for at, size in zip(index, outer, strict=True))
    if not within or (described.dtype, described.shape) != (tensor.dtype, shape) or box in described.chunks:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{key} at {list(index)} is {describe(tensor.dtype, shape)}, which is no other part of the"
            f" {describe(described.dtype, described.shape)} that it began as",
        )
    described.chunks[box] = None
    return box


def _check_filled(key: str, tensor: DescribedTensor) -> None:
    held = sum(math.prod(box.sizes) for box in tensor.chunks)
    if held != math.prod(tensor.shape):
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{key} is {describe(tensor.dtype, tensor.shape)}, of which {len(tensor.chunks)} parts were asked for",
        )
