"""Where a rank stands in a job's parallel layout, and which part of the model it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Place:
    """A rank's number among those that share something out, and how many they are."""

    rank: int
    size: int

    @classmethod
    def within(cls, group: dist.ProcessGroup) -> "Place":
        """The place of this rank in a group."""
        return cls(group.rank(), group.size())


@dataclass(frozen=True)
class Layout:
    """A rank's place in each way that Megatron-Core has of sharing work out.

    Attributes:
        rank: Its number in the job.
        tensor: Among those that hold the channels of one layer.
        pipeline: Among those that hold the layers.
        data: Among those that run different sequences on the same weights.
        context: Among those that hold the tokens of one sequence.
        expert: Among those that hold the experts of one layer.
        expert_tensor: Among those that hold the channels of one expert.
        expert_data: Among those that hold the same channels of the same experts.
        context_ranks: The ranks that run the same sequences on the same channels of the same layers.
        sequence_ranks: The ranks that run the same sequences on the same layers.
        expert_ranks: The ranks whose tokens meet at the experts of one layer.
    """

    rank: int
    tensor: Place
    pipeline: Place
    data: Place
    context: Place
    expert: Place
    expert_tensor: Place
    expert_data: Place
    context_ranks: tuple[int, ...]
    sequence_ranks: tuple[int, ...]
    expert_ranks: tuple[int, ...]


def read_layout() -> Layout:
    """Reads this rank's layout from megatron.core.parallel_state, which has to be initialised."""
    from megatron.core import parallel_state as ps

    return Layout(
        rank=dist.get_rank(),
        tensor=Place.within(ps.get_tensor_model_parallel_group()),
        pipeline=Place.within(ps.get_pipeline_model_parallel_group()),
        data=Place.within(ps.get_data_parallel_group()),
        context=Place.within(ps.get_context_parallel_group()),
        expert=Place.within(ps.get_expert_model_parallel_group()),
        expert_tensor=Place.within(ps.get_expert_tensor_parallel_group()),
        expert_data=Place.within(ps.get_expert_data_parallel_group()),
        context_ranks=_ranks(ps.get_context_parallel_group()),
        sequence_ranks=_ranks(ps.get_tensor_and_context_parallel_group()),
        expert_ranks=_ranks(ps.get_expert_tensor_and_model_parallel_group()),
    )


class LocalModel:
    """What a rank holds of the job's model: one chunk of layers, or several where pipeline stages are virtual."""

    def __init__(self, model: nn.Module | Sequence[nn.Module], layout: Layout) -> None:
        self.wrapped = list(model) if isinstance(model, Sequence | nn.ModuleList) else [model]
        self.chunks: list[Any] = [unwrapped(chunk) for chunk in self.wrapped]
        self._layout = layout

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules by the names that they have where one rank holds the whole model."""
        return {
            self._global_name(chunk, name): module for chunk in self.chunks for name, module in chunk.named_modules()
        }

    @property
    def device(self) -> torch.device:
        """Where this rank's weights are."""
        devices = (parameter.device for chunk in self.chunks for parameter in chunk.parameters())
        return next(devices, torch.device("cpu"))

    def _global_name(self, chunk: Any, name: str) -> str:
        parts = name.split(".")
        if parts[:2] == ["decoder", "layers"] and len(parts) > 2:  # noqa: PLR2004 the layer's number is the third
            parts[2] = str(chunk.decoder.layers[int(parts[2])].layer_number - 1)
        for at, part in enumerate(parts[:-1]):
            if part == "local_experts":
                held = len(chunk.get_submodule(".".join(name.split(".")[: at + 1])))
                parts[at + 1] = str(int(parts[at + 1]) + held * self._layout.expert.rank)
        return ".".join(parts)


def unwrapped(chunk: Any) -> Any:
    """The model within what a job wraps it in."""
    # Wrappers for data parallelism and for half precision each hold what they wrap as `module`.
    while isinstance(getattr(chunk, "module", None), nn.Module):
        chunk = chunk.module
    return chunk


def split_axis(module: nn.Module) -> int:
    """The axis of a module's weight that tensor parallel ranks share out, or -1."""
    axis: int = getattr(getattr(module, "weight", None), "partition_dim", -1)
    if axis >= 0:
        return axis
    # Megatron-Core marks weights only where it initialises them, which jobs that load a checkpoint leave out.
    if hasattr(module, "input_size_per_partition"):
        return 1
    parts = ("output_size_per_partition", "num_embeddings_per_partition")
    return 0 if any(hasattr(module, name) for name in parts) else -1


def _ranks(group: dist.ProcessGroup) -> tuple[int, ...]:
    return tuple(dist.get_process_group_ranks(group))
