"""Runs the job's model forward, and leaves it and the job's state as they were. M: micro-batch, B: batch, S: token."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from prunebridge_shim.cluster.layout import LocalModel
from prunebridge_shim.cluster.spread import TokenIds
from prunebridge_shim.models.undisturbed import undisturbed

GRAPHS = "cudagraph_manager"

Step = Callable[[int, nn.Module, dict[str, torch.Tensor]], Any]
"""Called with the number of a micro-batch, the model's chunk and its arguments; runs it."""

ArgumentsOf = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""Makes what a decoder takes of whole sequences of token ids."""


@contextmanager
def as_a_guest(model: LocalModel) -> Iterator[None]:
    """Has a model in eval mode, without gradients and CUDA graphs; all comes back, with every random state."""
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    with ExitStack() as stack:
        tracker = get_cuda_rng_tracker()
        stack.callback(tracker.set_states, tracker.get_states())
        stack.enter_context(undisturbed(nn.ModuleList(model.wrapped)))
        for chunk in model.chunks:
            stack.enter_context(without_graphs(chunk))
        yield


@contextmanager
def without_graphs(chunk: nn.Module) -> Iterator[None]:
    """Has modules run themselves where Megatron-Core would replay a CUDA graph, which calls no hooks."""
    found = [(module, dict(module._modules)) for module in chunk.modules() if GRAPHS in module._modules]  # noqa: SLF001
    for module, _ in found:
        delattr(module, GRAPHS)
    try:
        yield
    finally:
        for module, children in found:
            # In the order that they had: whoever walks over them finds them as before.
            module._modules.clear()  # noqa: SLF001
            module._modules.update(children)  # noqa: SLF001


@contextmanager
def without_output_layer(model: LocalModel) -> Iterator[None]:
    """Has the last stage end with the decoder: nobody reads the logits."""
    heads = [chunk for chunk in model.chunks if chunk.post_process]
    for chunk in heads:
        chunk.post_process = False
    try:
        yield
    finally:
        for chunk in heads:
            chunk.post_process = True


def inputs_of(ids_BS: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a decoder takes of whole sequences of token ids."""
    return {"input_ids": ids_BS, "position_ids": torch.arange(ids_BS.shape[1]).expand(ids_BS.shape)}


def run_micro_batches(
    model: LocalModel,
    ids_MBS: Sequence[TokenIds],
    step: Step,
    arguments_of: ArgumentsOf,
) -> None:
    """Runs micro-batches of one shape through all stages of the pipeline by Megatron-Core's own schedule.

    Args:
        model: This rank's part of the model.
        ids_MBS: What this rank runs, whole sequences.
        step: Runs one of them.
        arguments_of: Makes the arguments, of which each context parallel rank gets its part.
    """
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.utils import get_batch_on_this_cp_rank

    rows, length = ids_MBS[0].shape

    def forward(batches: Iterator[tuple[int, TokenIds]], chunk: nn.Module) -> tuple[Any, Callable[..., Any]]:
        number, ids_BS = next(batches)
        whole = arguments_of(torch.from_numpy(ids_BS))
        part = get_batch_on_this_cp_rank({name: tensor.to(model.device) for name, tensor in whole.items()})
        return step(number, chunk, part), _nothing

    batches = [enumerate(ids_MBS) for _ in model.wrapped]
    get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=batches if len(batches) > 1 else batches[0],
        model=model.wrapped,
        num_microbatches=len(ids_MBS),
        seq_length=length,
        micro_batch_size=rows,
        forward_only=True,
        collect_non_loss_data=True,
    )


def _nothing(_output: Any, non_loss_data: bool) -> None:
    """What a schedule keeps of each micro-batch."""
