"""Parts of requests in the words of those who do the work."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.wire import dtype_of
from prunebridge_shim.slicing.request import (
    CommonEdit,
    Indices,
    OutputShard,
    TensorPart,
    TensorSlice,
    TorchDistSave,
    index_sets_of,
)
from prunebridge_shim.slicing.strict_json import parse_strict_json
from prunebridge_shim.tensors import Batch

Measure = Literal[
    "mean_abs_square_in",
    "mean_abs_square_out",
    "cosine_distance",
    "routed_mean_abs_square",
    "routed_output_norm",
    "routed_tokens",
]

MEASURES: Mapping[tuple[Any, Any], Measure] = {
    (work_pb2.REDUCTION_MEAN_ABS_SQUARE, work_pb2.HOOK_SIDE_INPUT): "mean_abs_square_in",
    (work_pb2.REDUCTION_MEAN_ABS_SQUARE, work_pb2.HOOK_SIDE_OUTPUT): "mean_abs_square_out",
    (work_pb2.REDUCTION_COSINE_DISTANCE, work_pb2.HOOK_SIDE_UNSPECIFIED): "cosine_distance",
    (work_pb2.REDUCTION_ROUTED_MEAN_ABS_SQUARE, work_pb2.HOOK_SIDE_UNSPECIFIED): "routed_mean_abs_square",
    (work_pb2.REDUCTION_ROUTED_OUTPUT_NORM, work_pb2.HOOK_SIDE_UNSPECIFIED): "routed_output_norm",
    (work_pb2.REDUCTION_ROUTED_TOKENS, work_pb2.HOOK_SIDE_UNSPECIFIED): "routed_tokens",
}


def brings_batches(work: Any) -> bool:
    """Whether Python brings the batches of a piece of work, and no feed does."""
    if isinstance(work, work_pb2.CollectGradients):
        return work.HasField("data")
    return isinstance(work, (work_pb2.Collect, work_pb2.CalibrateNorms)) and work.WhichOneof("python") is not None


def measure_of(point: work_pb2.HookPoint) -> Measure:
    """What a hook point measures; raises INVALID_REQUEST for a reduction that cannot be on that side."""
    measure = MEASURES.get((point.reduction, point.side))
    if measure is None:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"hook {point.key!r} has reduction {point.reduction} on side {point.side}",
            "a mean-abs-square takes the input or the output, the others leave the side out",
        )
    return measure


def tensor_slice(wire: work_pb2.TensorSlice) -> TensorSlice:
    """A slice as the slicer knows it; raises BAD_TENSOR for an unknown dtype."""
    parts = tuple(map(_tensor_part, wire.parts))
    return TensorSlice(wire.name, parts, tuple(wire.index), tuple(wire.outer_shape))


def _tensor_part(wire: work_pb2.TensorPart) -> TensorPart:
    return TensorPart(
        source_file=wire.source_file,
        source_name=wire.source.name,
        dtype=dtype_of(wire.source.dtype, wire.source.name),
        shape=tuple(wire.source.shape),
        axes=tuple(wire.axes),
        blocks=tuple(tuple(block.axes) for block in wire.blocks),
        index=tuple(wire.index),
        shift=wire.shift,
    )


def sizes_of(wire: Iterable[work_pb2.ModuleSizes]) -> dict[str, dict[str, int]]:
    """The attributes of modules that count channels; raises INVALID_REQUEST for a module that is named twice."""
    sizes: dict[str, dict[str, int]] = {}
    for one in wire:
        if one.module in sizes:
            raise ShimError(Reason.INVALID_REQUEST, f"the sizes of module {one.module!r} are given twice")
        sizes[one.module] = dict(one.attributes)
    return sizes


def torch_dist_save(work: work_pb2.Slice) -> TorchDistSave | None:
    """What a save has besides shards; None where they are in safetensors. Raises INVALID_REQUEST."""
    if not work.HasField("torch_dist"):
        return None
    wire = work.torch_dist
    common = None
    if wire.HasField("common"):
        try:
            arguments = parse_strict_json(wire.common.arguments_json.encode())
        except (ValueError, RecursionError) as error:
            raise ShimError(Reason.INVALID_REQUEST, f"arguments_json is no JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise ShimError(Reason.INVALID_REQUEST, "arguments_json is no JSON object")
        common = CommonEdit(arguments, tuple(wire.common.left_out))
    return TorchDistSave(wire.folder, tuple(wire.empty_objects), common)


def output_shards(wire: Iterable[work_pb2.OutputShard]) -> list[OutputShard]:
    """Shards as the slicer knows them; raises BAD_TENSOR for an unknown dtype."""
    return [OutputShard(shard.file, dict(shard.metadata), tuple(map(tensor_slice, shard.tensors))) for shard in wire]


def read_index_sets(feed: Feed) -> dict[str, Indices]:
    """Takes a feed's only batch; raises INVALID_REQUEST where there is none or another."""
    return index_sets_of(read_only_batch(feed, "index sets come in one"))


def read_only_batch(feed: Feed, why: str) -> Batch:
    """Takes a feed's only batch; raises INVALID_REQUEST, which says why, where there is none or another."""
    batches = list(feed.batches())
    if len(batches) != 1:
        raise ShimError(Reason.INVALID_REQUEST, f"feed {feed.id!r} brought {len(batches)} batches; {why}")
    return batches[0]
