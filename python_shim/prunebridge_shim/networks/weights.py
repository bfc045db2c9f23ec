"""Puts the weights of a safetensors file into a network, every one of them and none else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError, storage_error
from prunebridge_shim.subnet.child import names_of_each, place, stored_tensors

KEYS_NAMED = 5

Weights = Mapping[str, torch.Tensor]


def read_weights(path: Path) -> Weights:
    """Reads a safetensors file into memory of its own; raises PATH_NOT_FOUND, BAD_CHECKPOINT or STORAGE_FAILED."""
    if not path.is_file():
        raise ShimError(Reason.PATH_NOT_FOUND, f"{path} is no file on this machine", "name a safetensors file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            # What is mapped would change with the file.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 no mapping
    except safetensors.SafetensorError as error:
        raise ShimError(
            Reason.BAD_CHECKPOINT,
            f"{path} is no safetensors file: {error}",
            "save the state dict with safetensors.torch.save_file; nothing is unpickled here",
        ) from error
    except OSError as error:
        raise storage_error(error) from error


def fill(network: nn.Module, weights: Weights, path: Path) -> None:
    """Makes a file's tensors those of a network, in their own element type.

    Args:
        network: Is changed only where all of them fit.
        weights: One for each key of its state dict; of tied ones, one or each.
        path: The file, for messages.

    Raises:
        ShimError: BAD_CHECKPOINT for a key that is missing or left over, and for another shape or kind of number.
    """
    expected = stored_tensors(network)
    _check_names(expected, weights, path)
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise _bad(path, f"has {name} as {list(tensor.shape)} and the network as {list(expected[name].shape)}")
    fill_reshaped(network, weights, path)


def fill_reshaped(network: nn.Module, weights: Weights, path: Path) -> None:
    """As `fill`, whatever shapes the network's tensors had."""
    expected = stored_tensors(network)
    _check_names(expected, weights, path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise _bad(path, f"has {name} in {tensor.dtype} and the network in {expected[name].dtype}")
    chosen = {names: _tied(names, weights, path) for names in _groups(expected)}
    for names, tensor in chosen.items():
        is_parameter = isinstance(expected[names[0]], nn.Parameter)
        placed = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
        for name in names:
            place(network, name, placed)


def _tied(names: Sequence[str], weights: Weights, path: Path) -> torch.Tensor:
    stored = [name for name in names if name in weights]
    for name in stored[1:]:
        if not torch.equal(weights[name], weights[stored[0]]):
            raise _bad(path, f"has other values for {name} than for {stored[0]}, which are one tensor")
    return weights[stored[0]]


def _groups(expected: Mapping[str, torch.Tensor]) -> list[tuple[str, ...]]:
    """Names of the same tensor, for each tensor."""
    return list(dict.fromkeys(tuple(names) for names in names_of_each(expected).values()))


def _check_names(expected: Mapping[str, torch.Tensor], weights: Weights, path: Path) -> None:
    missing = [names[0] for names in _groups(expected) if not any(name in weights for name in names)]
    strange = [name for name in weights if name not in expected]
    faults = [
        f"{what} {_listed(names)}" for what, names in (("lacks", missing), ("has no place for", strange)) if names
    ]
    if faults:
        raise ShimError(
            Reason.BAD_CHECKPOINT,
            f"{path} does not hold what the network has: it {'; it '.join(faults)}",
            "the file has every key of the network's state_dict() and none else",
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - KEYS_NAMED} more" if len(names) > KEYS_NAMED else ""
    return f"{', '.join(names[:KEYS_NAMED])}{more}"


def _bad(path: Path, message: str) -> ShimError:
    return ShimError(Reason.BAD_CHECKPOINT, f"{path} {message}", "check that the file belongs to this network")
