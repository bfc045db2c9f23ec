"""Checks the batches of a feed against the job's model. B: batch, S: sequence."""

from collections.abc import Iterable, Iterator
from typing import Any

from prunebridge_shim.cluster.rank import Rank
from prunebridge_shim.cluster.spread import TokenIds
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import INPUT_IDS, check_vocabulary
from prunebridge_shim.tensors import Ask


def token_ids(feed: Iterable[Ask], rank: Rank) -> Iterator[TokenIds]:
    """Yields the token ids of a feed's batches, I64 [B, S].

    Raises:
        ShimError: BAD_DATA for a batch that does not fit the model, or that its ranks cannot share out, or where there
            is none; INVALID_REQUEST for one that asks for something of its own.
    """
    index = -1
    for index, ask in enumerate(feed):
        if ask.returns != "nothing":
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"batch {index} asks for {ask.returns}, which a model on many ranks does not give",
            )
        yield _checked(ask, index, rank)
    if index < 0:
        raise ShimError(Reason.BAD_DATA, "the feed ended before its first batch", "send at least one batch")


def _checked(ask: Ask, index: int, rank: Rank) -> TokenIds:
    held = ", ".join(sorted(ask.batch)) or "nothing"
    if list(ask.batch) != [INPUT_IDS]:
        raise _bad(f"batch {index} holds {held} where a tensor {INPUT_IDS} alone belongs")
    ids = ask.batch[INPUT_IDS]
    if ids.dtype not in {"I64", "I32"} or ids.array.ndim != 2 or ids.array.size == 0:  # noqa: PLR2004 [B, S]
        raise _bad(f"{INPUT_IDS} of batch {index} is {ids}; token ids are I64 [batch, sequence], neither of them 0")
    length = ids.shape[1]
    if length % rank.length_multiple:
        raise _bad(
            f"batch {index} has sequences of {length} tokens, which the ranks of this job cannot share out",
            f"send sequences of a multiple of {rank.length_multiple} tokens",
        )
    model: Any = rank.model.chunks[0]
    if getattr(model, "position_embedding_type", None) == "learned_absolute" and length > model.max_sequence_length:
        raise _bad(
            f"batch {index} has sequences of {length} tokens, and the model has learned"
            f" {model.max_sequence_length} positions",
            "send shorter sequences",
        )
    check_vocabulary(int(ids.array.min()), int(ids.array.max()), index, model.vocab_size)
    return ids.array.astype("int64", copy=True)


def _bad(message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_DATA, message, hint)
