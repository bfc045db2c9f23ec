"""Losses with a graph behind them. B: batch, S: sequence, V: vocabulary, C: classes, N: predictions in a row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention
from torch.utils.checkpoint import checkpoint

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.batches import INPUT_IDS
from prunebridge_shim.models.loss import CHUNK_ELEMENTS
from prunebridge_shim.models.outputs import logits_of, named_tensors

ATTENTION_MASK = "attention_mask"
LABELS = "labels"
IGNORED = -100
"""The label of what is not to be predicted, as torch and transformers have it."""

BuiltIn = Literal["causal_lm", "masked_lm", "sequence_classification", "mse"]


@dataclass(frozen=True)
class Example:
    """A batch that a loss is taken of.

    Attributes:
        number: Counted from 0.
        inputs: Arguments of forward by name, on the model's device.
        labels: What is to be predicted, on the model's device, where the batch tells it.
        batch: What a function of the user's is given: all tensors of a feed's batch by name, or a loader's own batch.
    """

    number: int
    inputs: Mapping[str, Any]
    labels: torch.Tensor | None
    batch: Any


def built_in_loss(name: BuiltIn, output: Any, example: Example) -> torch.Tensor:
    """The loss of what a model returned, a scalar in float32 or finer.

    Raises:
        ShimError: BAD_DATA for labels that are missing or do not fit, INVALID_REQUEST for a model that does not return
            what the loss is of.
    """
    return _LOSSES[name](output, example)


def _causal_lm(output: Any, example: Example) -> torch.Tensor:
    logits_BSV = logits_of(output)
    targets_BS = _tokens_of(example.inputs) if example.labels is None else example.labels
    if targets_BS is None:
        raise _bad(example, f"has neither {LABELS} nor {INPUT_IDS}")
    _check_classes(targets_BS, logits_BSV, example)
    # The targets move rather than the logits, which that would copy.
    return _mean_cross_entropy(logits_BSV, F.pad(targets_BS[:, 1:], (0, 1), value=IGNORED), example)


def _tokens_of(inputs: Mapping[str, Any]) -> Any:
    """The tokens [B, S] that are to be predicted: all but padding. None where there are no tokens."""
    ids_BS, mask_BS = inputs.get(INPUT_IDS), inputs.get(ATTENTION_MASK)
    if ids_BS is None or not isinstance(mask_BS, torch.Tensor) or mask_BS.shape != ids_BS.shape:
        return ids_BS
    return ids_BS.masked_fill(mask_BS == 0, IGNORED)


def _masked_lm(output: Any, example: Example) -> torch.Tensor:
    return _by_labels(logits_of(output), _labels_of(example), example)


def _sequence_classification(output: Any, example: Example) -> torch.Tensor:
    # Rows of plain numbers are [1, B].
    return _by_labels(logits_of(output, axes=2), _labels_of(example).reshape(-1), example)


def _mse(output: Any, example: Example) -> torch.Tensor:
    labels = _labels_of(example)
    found = next(iter(named_tensors(output).values()), None)
    if found is None:
        raise ShimError(
            Reason.INVALID_REQUEST, f"the model returns {type(output).__name__}, in which there is no number to compare"
        )
    if labels.shape != found.shape:
        raise _bad(example, f"has {LABELS} {list(labels.shape)} where the output is {list(found.shape)}")
    return F.mse_loss(_at_least_float32(found), labels.to(torch.promote_types(found.dtype, torch.float32)))


_LOSSES: Mapping[BuiltIn, Callable[[Any, Example], torch.Tensor]] = {
    "causal_lm": _causal_lm,
    "masked_lm": _masked_lm,
    "sequence_classification": _sequence_classification,
    "mse": _mse,
}


def _by_labels(logits: torch.Tensor, labels: torch.Tensor, example: Example) -> torch.Tensor:
    _check_classes(labels, logits, example)
    return _mean_cross_entropy(logits, labels, example)


def _mean_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, example: Example) -> torch.Tensor:
    """Over all targets that are not ignored; turned to float32 chunk by chunk, there and back."""
    count = (targets != IGNORED).sum()
    if not count:
        raise _bad(example, "has nothing to predict: all of its targets are -100, or its sequences have one token")
    classes = logits.shape[-1]
    logits_NC, targets_N = logits.reshape(-1, classes), targets.reshape(-1)
    rows = max(1, CHUNK_ELEMENTS // classes)
    sums = [
        checkpoint(_summed_cross_entropy, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(logits_NC.split(rows), targets_N.split(rows), strict=True)
    ]
    return torch.stack(sums).sum() / count


def _summed_cross_entropy(logits_NC: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(_at_least_float32(logits_NC), targets_N, reduction="sum", ignore_index=IGNORED)


def _labels_of(example: Example) -> torch.Tensor:
    if example.labels is None:
        raise _bad(example, f"has no {LABELS}", f"add a tensor {LABELS} to every batch")
    return example.labels


def _check_classes(targets: torch.Tensor, logits: torch.Tensor, example: Example) -> None:
    if targets.shape != logits.shape[:-1] or targets.dtype != torch.int64:
        kind = str(targets.dtype).removeprefix("torch.")
        raise _bad(
            example,
            f"has targets {kind} {list(targets.shape)} where the model's logits are {list(logits.shape)}",
            f"give int64 {LABELS} {list(logits.shape[:-1])}",
        )
    wrong = targets[((targets < 0) | (targets >= logits.shape[-1])) & (targets != IGNORED)]
    # A GPU that is asked for the logit of no class is lost.
    if len(wrong):
        raise _bad(
            example, f"has the label {int(wrong[0])}; the model has {logits.shape[-1]} classes", "-100 is ignored"
        )


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _bad(example: Example, what: str, hint: str = "") -> ShimError:
    return ShimError(Reason.BAD_DATA, f"batch {example.number} {what}", hint)
