"""Batches on their way from a feed to a model. B: batch, S: sequence."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.tensors import Ask, Batch, HostTensor

INPUT_IDS = "input_ids"
SET_HERE = {"use_cache"}
"""Arguments of forward that are the shim's own."""

TORCH_DTYPES = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
"""Those that numpy lacks."""

Inputs = Mapping[str, torch.Tensor]
"""Arguments of a model's forward by name, on the model's device; `input_ids` is I64 [B, S]."""


def model_inputs(feed: Iterable[Ask], model: Any) -> Iterator[tuple[Ask, Inputs]]:
    """Yields the feed's batches as arguments of the model's forward, each checked against its vocabulary.

    Raises:
        ShimError: BAD_DATA for a batch that does not fit the model, or where there is none.
    """
    index = -1
    for index, ask in enumerate(feed):
        yield ask, inputs_of(ask.batch, index, model)
    if index < 0:
        raise ShimError(Reason.BAD_DATA, "the feed ended before its first batch", "send at least one batch")


def inputs_of(batch: Batch, index: int, model: Any) -> Inputs:
    """A batch as arguments of the model's forward; raises BAD_DATA where it does not fit the model."""
    _check_names(batch, index, argument_names(model))
    ids = _checked(batch[INPUT_IDS], index, model.get_input_embeddings().weight.shape[0])
    _check_shapes(batch, index)
    inputs = {name: to_torch(tensor) for name, tensor in batch.items()}
    inputs[INPUT_IDS] = torch.from_numpy(ids.array.astype("int64", copy=True))
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def argument_names(model: Any) -> list[str]:
    """What a model's forward takes by name, in the order of its positional arguments."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def check_vocabulary(lowest: int, highest: int, index: int, vocab_size: int) -> None:
    """Raises BAD_DATA where the least or the greatest token id of a batch has no embedding."""
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise _bad(
            f"token id {wrong} in batch {index} is outside of the vocabulary of {vocab_size}",
            "tokenize with the tokenizer of this model",
        )


def _check_names(batch: Batch, index: int, known: list[str]) -> None:
    held = ", ".join(sorted(batch)) or "nothing"
    if INPUT_IDS not in batch:
        raise _bad(f"batch {index} holds {held} where a tensor {INPUT_IDS} belongs")
    takes = [name for name in known if name not in SET_HERE]
    strange = [name for name in batch if name not in takes]
    if strange:
        raise _bad(
            f"batch {index} holds {strange[0]}, which the model's forward does not take", f"it takes {', '.join(takes)}"
        )


def _checked(ids: HostTensor, index: int, vocab_size: int) -> HostTensor:
    if ids.dtype not in {"I64", "I32"} or ids.array.ndim != 2 or ids.array.size == 0:  # noqa: PLR2004 [B, S]
        raise _bad(f"{INPUT_IDS} of batch {index} is {ids}; token ids are I64 [batch, sequence], neither of them 0")
    check_vocabulary(int(ids.array.min()), int(ids.array.max()), index, vocab_size)
    return ids


def _check_shapes(batch: Batch, index: int) -> None:
    # transformers pads or drops a mask that is too short, in silence.
    rows, length = batch[INPUT_IDS].shape
    for name, tensor in batch.items():
        if len(tensor.shape) == 2 and tensor.shape not in {(rows, length), (1, length)}:  # noqa: PLR2004 [B, S]
            raise _bad(f"{name} of batch {index} is {tensor} where {INPUT_IDS} is [{rows}, {length}]")


def to_torch(tensor: HostTensor) -> torch.Tensor:
    """A tensor that shares its memory."""
    if tensor.dtype in TORCH_DTYPES:
        return torch.from_numpy(tensor.array.view(f"i{tensor.array.itemsize}")).view(TORCH_DTYPES[tensor.dtype])
    return torch.from_numpy(tensor.array)


def _bad(message: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_DATA, message, hint)
