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

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.networks.coupling import Channels, Node
from prunebridge_shim.networks.layers import Side, describe_layer, describe_parameter, multiply_accumulates
from prunebridge_shim.tensors import Tick

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
        naming = _naming("the network does not run on the dummy input")
        with naming, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    finally:
        for handle in handles:
            handle.remove()
    return Counted(factors, counter.get_total_flops() / 2)


Reached = tuple[Node, Sequence[int], Sequence[int]]
"""What has the channels of a root: at which positions, and at which the root has them."""


def couple(network: nn.Module, roots: Sequence[Node], channels: Channels, call: Call, tick: Tick) -> frozenset[int]:
    """Joins the channels that are one; gives those that have to stay, because they leave the network or cannot be cut.

    Args:
        network: In eval mode.
        roots: The outputs that may be cut.
        channels: Those of all layers.
        call: Runs the network.
        tick: Hears of roots that were followed; may raise to end that.

    Raises:
        ShimError: BAD_DATA where the graph cannot be followed.
    """
    modules = dict(network.named_modules())
    names = {id(module): name for name, module in (*modules.items(), *network.named_parameters())}
    bound: list[tuple[Node, Sequence[int]]] = []
    with _autograd(network), _hooks_kept(network):
        with _naming("the graph of the network cannot be followed"):
            graph: Any = torch_pruning.DependencyGraph()
            graph.build_dependency(network, (), forward_fn=lambda *_: call(), output_transform=_leaving, verbose=False)
        for number, root in enumerate(roots):
            tick(number, len(roots))
            with _naming("the graph of the network cannot be followed"):
                bound += _join(_reached(graph, modules[root[0]], channels.size(root), names), root, channels)
    return frozenset(int(label) for node, at in bound for label in channels.of(node)[list(at)])


def _join(reached: Iterable[Reached], root: Node, channels: Channels) -> list[tuple[Node, Sequence[int]]]:
    """Joins a root's channels to those of the nodes that it reaches; gives those that have to stay."""
    bound: list[tuple[Node, Sequence[int]]] = []
    for node, positions, at in reached:
        if node not in channels:
            bound.append((root, at))
        elif channels.hold(node, positions) and channels.hold(root, at):
            channels.join(root, at, node, positions)
        else:  # an operation between them counts its channels in a way that the graph does not know
            bound += [(one, range(channels.size(one))) for one in (root, node)]
    return bound


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


@contextmanager
def _hooks_kept(network: nn.Module) -> Iterator[None]:
    """Takes away the hooks that torch-pruning leaves where the network fails."""
    before = [(module._forward_hooks, dict(module._forward_hooks)) for module in network.modules()]  # noqa: SLF001
    try:
        yield
    finally:
        for hooks, own in before:
            for added in hooks.keys() - own.keys():
                del hooks[added]


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turns whatever a network raises into BAD_DATA."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ShimError(
            Reason.BAD_DATA,
            f"{what}: {type(error).__name__}: {error}",
            "the dummy input is the arguments of forward; layers whose channels are mixed in other ways cannot be cut",
        ) from error
