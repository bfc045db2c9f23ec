"""Builds a child of a network: the same modules, of which some count other channels."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.networks.sizes import Sizes, set_sizes
from prunebridge_shim.subnet.child import stored_tensors


def build_child(network: Any, tensors: Mapping[str, torch.Tensor], sizes: Sizes) -> Any:
    """Copies a network with other tensors in the stead of its own.

    Args:
        network: Left as it is; what is neither a parameter nor a stored buffer is copied.
        tensors: The child's parameters and stored buffers by name; of tied ones, one or each. They are not copied.
        sizes: The attributes of its modules that count what was cut.

    Raises:
        ShimError: UNKNOWN_MODULE or BAD_TENSOR where it has no such module or attribute, INVALID_REQUEST where it
            cannot be copied.
    """
    # The many empty dictionaries of a module, for hooks, would take most of the time.
    replaced: dict[int, object] = {id(one): type(one)() for one in _empty_dictionaries(network)}
    for name, tensor in stored_tensors(network).items():
        if name in tensors:
            is_parameter = isinstance(tensor, nn.Parameter)
            replaced[id(tensor)] = nn.Parameter(tensors[name], False) if is_parameter else tensors[name]
    try:
        child = copy.deepcopy(network, replaced)
    except Exception as error:  # whatever a network's own attributes raise
        if is_out_of_memory(error):
            raise
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"the network cannot be copied: {type(error).__name__}: {error}",
            "its modules may hold nothing that copy.deepcopy refuses, such as open files and results of operations",
        ) from error
    set_sizes(child, sizes, Reason.BAD_TENSOR)
    return child


def _empty_dictionaries(network: nn.Module) -> Iterator[dict[Any, Any]]:
    for module in network.modules():
        yield from (value for value in vars(module).values() if type(value) in (dict, OrderedDict) and not value)
