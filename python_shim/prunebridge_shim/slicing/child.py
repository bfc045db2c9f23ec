"""A child from a job: what is cut into which files, and what is written beside them."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import read_exactly
from prunebridge_shim.slicing.layout import ShardLayout, lay_out
from prunebridge_shim.slicing.parents import Parent, open_parents
from prunebridge_shim.slicing.request import SliceJob, TorchDistSave
from prunebridge_shim.slicing.sources import SourceFile, plain_name
from prunebridge_shim.slicing.torch_dist_common import COMMON_FILE, edit_common
from prunebridge_shim.slicing.torch_dist_metadata import METADATA_FILE
from prunebridge_shim.slicing.torch_dist_save import BACKEND, BACKEND_FILE, lay_out_save


@dataclass(frozen=True)
class ChildLayout:
    """What a job writes.

    Attributes:
        folder: The folder within the child that all of it lies in; empty for the child's own.
        shards: The files that are cut.
        beside: The content of the files that are written once these are whole, by name, in order.
        sources: The parent's files that it comes from.
        parent: What tells the parent's content from another, as JSON has it.
    """

    folder: str
    shards: Sequence[ShardLayout]
    beside: Mapping[str, bytes]
    sources: Sequence[SourceFile]
    parent: Mapping[str, object]


def lay_out_child(job: SliceJob, stack: ExitStack) -> ChildLayout:
    """Opens the parent until `stack` closes it, and checks the request against it and the index sets.

    Raises:
        ShimError: they do not agree, or the parent is not sound.
        FileNotFoundError: a file of the parent is not there.
    """
    names = [shard.file for shard in job.shards]
    if len(set(names)) < len(names):
        raise ShimError(Reason.INVALID_REQUEST, f"two shards have one name: {', '.join(sorted(names))}")
    parents = open_parents(job.source_dir, job.shards, stack)
    if job.torch_dist:
        return _lay_out_save(job, job.torch_dist, parents, stack)
    shards = [lay_out(shard, parents, job.sets) for shard in job.shards]
    return ChildLayout("", shards, {}, _files_of(parents), _identities(parents))


def _lay_out_save(job: SliceJob, wanted: TorchDistSave, parents: Mapping[str, Parent], stack: ExitStack) -> ChildLayout:
    shards, save = lay_out_save(job.shards, parents, job.sets, wanted.empty_objects)
    common = SourceFile(job.source_dir / COMMON_FILE, stack)
    size = common.version.size
    if wanted.common:
        content = edit_common(common.fd, size, common.path, wanted.common)
    else:
        content = read_exactly(common.fd, size, 0, str(common.path))
    beside = {
        COMMON_FILE: content,
        METADATA_FILE: save.metadata(),
        BACKEND_FILE: json.dumps(BACKEND).encode(),  # last, as Megatron writes it
    }
    identities = {**_identities(parents), COMMON_FILE: common.version}
    return ChildLayout(plain_name(wanted.folder), shards, beside, [*_files_of(parents), common], identities)


def _files_of(parents: Mapping[str, Parent]) -> list[SourceFile]:
    return [file for parent in parents.values() for file in parent.files]


def _identities(parents: Mapping[str, Parent]) -> dict[str, object]:
    return {name: parent.identity for name, parent in parents.items()}
