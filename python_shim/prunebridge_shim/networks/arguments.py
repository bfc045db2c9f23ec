"""Batches as the arguments of a network's forward, positional or by name."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.models.arguments import split_arguments
from prunebridge_shim.models.batches import to_torch
from prunebridge_shim.models.store import device_of, dtype_of
from prunebridge_shim.tensors import Ask, Batch


@dataclass(frozen=True)
class Arguments:
    """Arguments of forward, on the network's device.

    Attributes:
        batch: The number of the batch that has them, counted from 0.
        positional: In their order.
        named: The others.
    """

    batch: int
    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    def run(self, network: nn.Module) -> Any:
        """Calls a network with them; raises BAD_DATA where it cannot run them."""
        try:
            return network(*self.positional, **self.named)
        except ShimError:
            raise
        except Exception as error:  # whatever a network raises
            if is_out_of_memory(error):
                raise
            raise ShimError(
                Reason.BAD_DATA,
                f"the network cannot run batch {self.batch}, {self}: {type(error).__name__}: {error}",
                "a batch holds the arguments of its forward: positional ones under their positions, `0` for the first",
            ) from error

    def __str__(self) -> str:
        held = {**{str(at): one for at, one in enumerate(self.positional)}, **self.named}
        return ", ".join(f"{name} {_described(value)}" for name, value in held.items()) or "which is empty"


def network_inputs(feed: Iterable[Ask], network: nn.Module) -> Iterator[tuple[Ask, Arguments]]:
    """Yields a feed's batches as arguments; raises as `named_arguments`, and BAD_DATA where there is none."""
    index = -1
    for index, ask in enumerate(feed):
        yield ask, named_arguments(network, ask.batch, index)
    if index < 0:
        raise ShimError(Reason.BAD_DATA, "the feed ended before its first batch", "send at least one batch")


def named_arguments(network: nn.Module, batch: Batch, index: int) -> Arguments:
    """The arguments that a feed's batch holds: positional ones under their positions, others under their names.

    Raises:
        ShimError: BAD_DATA where a position is left out, or forward does not take them.
    """
    positions = [name for name in batch if name.isdecimal()]
    missing = [at for at in range(len(positions)) if str(at) not in batch]
    if missing:
        raise ShimError(
            Reason.BAD_DATA,
            f"batch {index} holds positions {', '.join(sorted(positions))} of forward's arguments, and no {missing[0]}",
            "positions count from 0, without a gap",
        )
    positional = tuple(to_torch(batch[str(at)]) for at in range(len(positions)))
    named = {name: to_torch(tensor) for name, tensor in batch.items() if name not in positions}
    return _bound(network, index, positional, named)


def given_arguments(network: nn.Module, value: Any, index: int) -> Arguments:
    """The arguments that a Python function gave, in the forms of torch.onnx.export's `args`; raises BAD_DATA."""
    return _bound(network, index, *split_arguments(value))


def _bound(network: nn.Module, index: int, positional: tuple[Any, ...], named: Mapping[str, Any]) -> Arguments:
    device, dtype = device_of(network), dtype_of(network)
    moved = {name: _moved(value, device, dtype) for name, value in named.items()}
    arguments = Arguments(index, tuple(_moved(value, device, dtype) for value in positional), moved)
    signature = inspect.signature(network.forward)
    try:
        signature.bind(*arguments.positional, **arguments.named)
    except TypeError as error:
        raise ShimError(
            Reason.BAD_DATA,
            f"batch {index}, {arguments}, is not what the network's forward takes: {error}",
            f"it takes {signature}",
        ) from error
    return arguments


def _moved(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else None)


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
