"""Where the weights of a job's model lie, as Megatron-Core itself would put them into a checkpoint."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from prunebridge_shim.cluster.layout import Layout, LocalModel, Place
from prunebridge_shim.cluster.norms import apart
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_names import TORCH_DTYPES

EXPERTS = ".mlp.experts."
STACKED_EXPERTS = re.compile(r"(?<=\.mlp\.experts\.)experts(?=\.)")
"""Of a name that stands for a tensor of all experts, with the expert as its first axis."""


@dataclass(frozen=True)
class Holding:
    """A rectangle of one tensor, which this rank holds.

    Attributes:
        name: The tensor's, where one rank holds the whole model of the local layer spec.
        shape: The whole tensor's.
        offset: Where in the tensor the rectangle begins, along each axis.
        values: The rectangle, in the model's own memory.
        copy: This rank among those that hold the same rectangle.
        channels: This rank among those that hold the rest of the tensor.
    """

    name: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    values: torch.Tensor
    copy: Place
    channels: Place

    @property
    def dtype(self) -> str:
        """The element type, as safetensors spells it; as torch does where that has none."""
        return TORCH_DTYPES.get(str(self.values.dtype), str(self.values.dtype))

    @property
    def split_axis(self) -> int | None:
        """The axis behind the first that ranks share out, where one is: none of them holds whole rows."""
        whole = zip(self.shape[1:], self.values.shape[1:], strict=True)
        return next((axis for axis, (size, held) in enumerate(whole, 1) if held < size), None)

    def channel_group(self) -> dist.ProcessGroup:
        """The ranks that hold the rest of the tensor, in the order in which their rectangles lie."""
        from megatron.core import parallel_state as ps

        group: dist.ProcessGroup = (
            ps.get_expert_tensor_parallel_group() if EXPERTS in self.name else ps.get_tensor_model_parallel_group()
        )
        return group


def find_holdings(model: LocalModel, layout: Layout) -> list[Holding]:
    """Finds all that this rank holds of the model's parameters and persistent buffers; nothing is copied.

    Raises:
        ShimError: INVALID_REQUEST for weights that are no plain tensors, or lie otherwise than a checkpoint has them.
    """
    return [
        holding
        for chunk in model.chunks
        for tensor in _sharded_tensors(chunk)
        # The last stage's copy of a tied embedding is the first stage's to give.
        if tensor.replica_id[0] == 0
        for holding in [_holding(tensor, layout)]
    ]


def _sharded_tensors(chunk: Any) -> Iterator[Any]:
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory

    for name, parameter in chunk.named_parameters():
        if type(parameter) is not nn.Parameter:
            kind = type(parameter).__name__
            raise _unsaved(f"{name} is a {kind}", "only weights that are plain tensors can be saved: no FSDP, no FP8")
    # Numbers of layers in names, where Megatron-Core may have them as an axis.
    for name, entry in chunk.sharded_state_dict(metadata={"non_homogeneous_layers": True}).items():
        if isinstance(entry, ShardedTensor):
            yield entry
        if isinstance(entry, ShardedTensorFactory):
            built = entry.build()
            for tensor in built if isinstance(built, list) else [built]:
                _check_shares_memory(name, entry.data, tensor.data)
                yield tensor


def _check_shares_memory(name: str, whole: torch.Tensor, part: torch.Tensor) -> None:
    if part.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        raise _unsaved(f"{name} is held transposed", "build experts as TEGroupedMLP or SequentialMLP")


def _holding(tensor: Any, layout: Layout) -> Holding:
    name, first = tensor.key, tensor.prepend_axis_num
    if first:
        name = STACKED_EXPERTS.sub(f"local_experts.{tensor.global_offset[0]}", name)
    name = apart(name)
    shape, values = tuple(tensor.global_shape[first:]), tensor.data.detach()
    is_expert = EXPERTS in name
    channels = layout.expert_tensor if is_expert else layout.tensor
    copy = layout.expert_data if is_expert else _among(layout.data, layout.context)
    if values.shape == shape:
        copy = _among(channels, copy)
    return Holding(name, shape, tuple(tensor.global_offset[first:]), values, copy, channels)


def _among(outer: Place, inner: Place) -> Place:
    return Place(outer.rank * inner.size + inner.rank, outer.size * inner.size)


def _unsaved(message: str, hint: str) -> ShimError:
    return ShimError(Reason.INVALID_REQUEST, message, hint)
