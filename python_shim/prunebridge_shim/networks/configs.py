"""Tells whether a config of transformers makes an open network."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.opening import build_of_config, class_of
from prunebridge_shim.subnet.child import stored_tensors


def find_difference(network: nn.Module, config: Mapping[str, Any]) -> str:
    """The first difference between a network and one that transformers builds of a config; empty where there is none.

    Where the config builds nothing, the difference is what transformers says of it.

    Compared are the names and shapes of parameters and stored buffers, and what modules count: two models of the same
    shapes may share their channels out among other numbers of heads.

    Raises:
        ShimError: INVALID_REQUEST where the config names no class of transformers.
    """
    kind = class_of(config, "the config", Reason.INVALID_REQUEST)
    try:
        with torch.device("meta"):
            made = build_of_config(kind, config, Reason.INVALID_REQUEST)
    except ShimError as error:
        return error.message
    return next(_differences(network, made), "")


def _differences(network: nn.Module, made: nn.Module) -> Iterator[str]:
    ours, theirs = stored_tensors(network), stored_tensors(made)
    for name, tensor in ours.items():
        if name not in theirs:
            yield f"the config makes no {name}"
        elif tensor.shape != theirs[name].shape:
            yield f"{name} is {list(tensor.shape)} and the config makes it {list(theirs[name].shape)}"
    yield from (f"the config makes {name}, which the network lacks" for name in theirs if name not in ours)
    modules = dict(made.named_modules())
    for path, module in network.named_modules():
        if path not in modules:
            yield f"the config makes no module {path}"
        else:
            yield from _other_sizes(path, module, modules[path])


def _other_sizes(path: str, ours: nn.Module, theirs: nn.Module) -> Iterator[str]:
    for name, value in vars(ours).items():
        other = vars(theirs).get(name)
        if _counts(name, value) and value != other:
            yield f"{path}.{name} is {value} and the config makes it {other}"


def _counts(name: str, value: Any) -> bool:
    sizes = value if isinstance(value, tuple) else (value,)
    return not name.startswith("_") and all(type(size) is int for size in sizes)
