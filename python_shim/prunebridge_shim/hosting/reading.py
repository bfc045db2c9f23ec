"""Sees that a job reads all that is stored of a model: what is left makes another network of it."""

from dataclasses import dataclass

from prunebridge_shim.cluster.exchange import AgreedError, Exchange
from prunebridge_shim.errors import Reason
from prunebridge_shim.hosting.weights import Weights

NAMED = 3
"""Tensors that the message names."""


@dataclass(frozen=True)
class Reading:
    """What one rank has read.

    Attributes:
        names: All tensors that are stored of the model, in an order that all ranks have.
        flags: A byte for each of them: 1 where this rank has read of it, else 0.
    """

    names: tuple[str, ...]
    flags: bytes


def reading_of(weights: Weights) -> Reading:
    """What was read of weights up to now."""
    names = tuple(sorted(weights.names))
    return Reading(names, bytes(name in weights.taken for name in names))


def check_all_read(reading: Reading, exchange: Exchange) -> None:
    """Raises BAD_CHECKPOINT on all ranks where a tensor is stored that none has read; every rank has to call it."""
    flags = zip(*exchange.gather_everywhere(reading.flags), strict=True)
    left = [name for name, by_ranks in zip(reading.names, flags, strict=True) if not any(by_ranks)]
    if left:
        named = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
        raise AgreedError(
            Reason.BAD_CHECKPOINT,
            f"the network that the config states has no place for {named}",
            "the config beside the weights is of another network",
        )
