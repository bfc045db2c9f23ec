"""Token ids on their way from a feed to a model. B: batch, S: sequence."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.tensors import Batch, HostTensor

INPUT_IDS = "input_ids"


def token_batches(feed: Iterable[Batch], model: Any) -> Iterator[torch.Tensor]:
    """Yields the feed's token ids [B, S] on the model's device, each checked against its vocabulary.

    Raises:
        ShimError: BAD_DATA for a batch that does not fit the model, or where there is none.
    """
    vocab_size = model.get_input_embeddings().weight.shape[0]
    index = -1
    for index, batch in enumerate(feed):
        ids = _checked(batch, index, vocab_size)
        yield torch.from_numpy(ids.array.astype("int64", copy=True)).to(model.device)
    if index < 0:
        raise ShimError(Reason.BAD_DATA, "the feed ended before its first batch", "send at least one batch")


def _checked(batch: Batch, index: int, vocab_size: int) -> HostTensor:
    if batch.keys() != {INPUT_IDS}:
        raise _bad(f"batch {index} holds {', '.join(sorted(batch)) or 'nothing'} where one tensor {INPUT_IDS} belongs")
    ids = batch[INPUT_IDS]
    if ids.dtype not in {"I64", "I32"} or ids.array.ndim != 2 or ids.array.size == 0:  # noqa: PLR2004 [B, S]
        raise _bad(f"{INPUT_IDS} of batch {index} is {ids}; token ids are I64 [batch, sequence], neither of them 0")
    lowest, highest = int(ids.array.min()), int(ids.array.max())
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise _bad(
            f"token id {wrong} in batch {index} is outside of the vocabulary of {vocab_size}",
            "tokenize with the tokenizer of this model",
        )
    return ids


def _bad(message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_DATA, message, hint)
