"""Follows a network's graph: which channels of its layers are one."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch_pruning.ops import _OutputOp

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.coupling import Channels, Node
from prunebridge_shim.networks.layers import Side, describe_layer, describe_parameter, multiply_accumulates

Call = Callable[[], Any]
"""Runs the network on its dummy input."""


@dataclass(frozen=True)
class Counted:
    """What a run multiplies and adds.

    Attributes:
        factors: Of the layers that ran, for each pair of channels.
        total: All there is, in layers or not.
    """

    factors: Mapping[str, float]
    total: float


def run_layers(network: nn.Module, layers: Iterable[str], call: Call) -> Counted:
    """Runs a network; gives the layers that ran, with what each multiplies and adds for each pair of channels.

    Raises:
        ShimError: BAD_DATA where it does not run.
    """
    factors: dict[str, float] = {}

    def count(name: str, module: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], returned: Any) -> None:
        first = next(iter((*given, *named.values())))
        factors[name] = factors.get(name, 0) + multiply_accumulates(module, first, returned)

    modules = dict(network.named_modules())
    handles = [
        modules[name].register_forward_hook(
            lambda module, given, named, returned, name=name: count(name, module, given, named, returned),
            with_kwargs=True,
        )
        for name in layers
    ]
    try:
        # Fused attention is not counted everywhere; its matrix products are.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    except Exception as error:
        raise _failed("the network does not run on the dummy input", error) from error
    finally:
        for handle in handles:
            handle.remove()
    return Counted(factors, counter.get_total_flops() / 2)


def couple(network: nn.Module, roots: Sequence[Node], channels: Channels, call: Call) -> frozenset[int]:
    """Joins the channels that are one; gives those that have to stay, because they leave the network or cannot be cut.

    Args:
        network: In eval mode.
        roots: The outputs that may be cut.
        channels: Those of all layers.
        call: Runs the network.

    Raises:
        ShimError: BAD_DATA where the graph cannot be followed.
    """
    modules = dict(network.named_modules())
    names = {id(module): name for name, module in (*modules.items(), *network.named_parameters())}
    bound: list[tuple[Node, Sequence[int]]] = []
    with _autograd(network):
        try:
            graph: Any = torch_pruning.DependencyGraph()
            graph.build_dependency(network, (), forward_fn=lambda *_: _leaving(call()), verbose=False)
            for root in roots:
                for node, positions, at in _reached(graph, modules[root[0]], channels.size(root), names):
                    if node in channels:
                        channels.join(root, at, node, positions)
                    else:
                        bound.append((root, at))
        except Exception as error:
            raise _failed("the graph of the network cannot be followed", error) from error
    return frozenset(int(label) for root, at in bound for label in channels.of(root)[list(at)])


Reached = tuple[Node, Sequence[int], Sequence[int]]
"""What has the channels of a root: at which positions, and at which the root has them."""


def _reached(graph: Any, module: nn.Module, size: int, names: Mapping[int, str]) -> Iterator[Reached]:
    if module not in graph.module2node:
        yield ("", "lost"), range(size), range(size)  # what becomes of its output cannot be followed
        return
    cut = graph.get_pruner_of_module(module).prune_out_channels
    for some in _telling_apart(size):
        for item in graph.get_pruning_group(module, cut, some):
            target = item.dep.target.module
            name = names.get(id(target))
            if name is not None:
                yield (name, _side_of(graph, item.dep.handler, target)), item.idxs, item.root_idxs
            elif isinstance(target, _OutputOp):
                yield ("", "output"), item.idxs, item.root_idxs


def _telling_apart(size: int) -> Iterator[list[int]]:
    """Sets of channels, such that of any two one set has the one without the other.

    Asked for all channels at once, the graph does not say which of a root's own are one: both are asked for already.
    """
    yield from ([channel for channel in range(size) if channel >> bit & 1 == value] for bit, value in _bits(size))


def _bits(size: int) -> Iterator[tuple[int, int]]:
    return itertools.product(range(max(1, (size - 1).bit_length())), (0, 1))


def _side_of(graph: Any, handler: Any, target: Any) -> Side:
    layer = describe_layer(target) if isinstance(target, nn.Module) else describe_parameter(target)
    if layer and "both" in layer.sizes:
        return "both"
    return "out" if graph.is_out_channel_pruning_fn(handler) else "in"


def _leaving(outputs: Any) -> list[torch.Tensor]:
    """The tensors that leave the network, each from an operation of its own."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not tensors:
        raise TypeError("it returns no tensor that depends on its parameters")
    return [tensor * 1 for tensor in tensors]


@contextmanager
def _autograd(network: nn.Module) -> Iterator[None]:
    """Has all parameters take part in autograd, and then as they did."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _failed(what: str, error: Exception) -> ShimError:
    return ShimError(
        Reason.BAD_DATA,
        f"{what}: {type(error).__name__}: {error}",
        "the dummy input is the arguments of forward; layers whose channels are mixed in other ways cannot be cut",
    )
