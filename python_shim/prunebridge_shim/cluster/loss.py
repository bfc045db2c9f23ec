"""Mean next-token cross entropy of the job's model. B: batch, S: sequence."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from prunebridge_shim.cluster.exchange import AgreedError
from prunebridge_shim.cluster.feeding import token_ids
from prunebridge_shim.cluster.forward import as_a_guest, inputs_of
from prunebridge_shim.cluster.layout import unwrapped
from prunebridge_shim.cluster.measures import MicroBatch
from prunebridge_shim.cluster.rank import Rank
from prunebridge_shim.cluster.running import run_rounds
from prunebridge_shim.errors import Reason
from prunebridge_shim.tensors import Ask, Tick


def evaluate_loss(rank: Rank, feed: Iterable[Ask], tick: Tick) -> tuple[float, int]:
    """Runs the model over all batches. Every rank has to call it.

    Args:
        rank: This rank.
        feed: Batches on the leader, nothing on others.
        tick: Hears of progress on the leader; it may raise there.

    Returns:
        The loss in nats per token, and the tokens that were predicted. It is right on the leader.

    Raises:
        AgreedError: On all ranks: BAD_DATA where a batch does not fit the model, or no sequence has a second token;
            CANCELLED.
    """
    total = torch.zeros((), dtype=torch.float64, device=rank.model.device)
    batches, tokens = 0, 0

    def run(micro_batch: MicroBatch, chunk: nn.Module, arguments: dict[str, torch.Tensor]) -> Any:
        predicted_BS = arguments.pop("predicted")
        output = chunk(**arguments, attention_mask=None)
        if unwrapped(chunk).post_process and micro_batch.counts:
            # Ranks that run the same sequences all come to their loss.
            total.add_((output * predicted_BS).sum(dtype=torch.float64) / micro_batch.repeats)
        return output

    def told() -> None:
        tick(batches, 0)

    with as_a_guest(rank.model):
        for taken in run_rounds(rank, token_ids(feed, rank), run, told, _labelled):
            batches += taken.counted
            tokens += sum(batch[:, 1:].size for batch in taken.batches[: taken.counted])
    if tokens == 0:
        raise AgreedError(Reason.BAD_DATA, "no sequence has a second token to predict", "send at least 2 tokens each")
    # Tensor parallel ranks all have the same.
    brought = rank.exchange.gather(float(total) if rank.layout.tensor.rank == 0 else 0.0)
    return sum(brought) / tokens, tokens


def _labelled(ids_BS: torch.Tensor) -> dict[str, torch.Tensor]:
    predicted_BS = torch.ones(ids_BS.shape)
    predicted_BS[:, -1] = 0
    return {**inputs_of(ids_BS), "labels": ids_BS.roll(-1, 1), "predicted": predicted_BS}
