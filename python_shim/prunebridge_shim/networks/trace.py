"""Traces a network: which channels are one, what they are in, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunebridge_shim.networks.coupling import Channels, Node, describe_axis, find_groups, find_places
from prunebridge_shim.networks.describe import CUTTABLE, Traced
from prunebridge_shim.networks.facts import NetworkFacts
from prunebridge_shim.networks.graph import couple, run_layers
from prunebridge_shim.networks.layers import Layer, describe_layer, describe_parameter
from prunebridge_shim.networks.trial import keep_what_fails
from prunebridge_shim.subnet.child import names_of_each, stored_tensors
from prunebridge_shim.tensors import Tick


def trace(network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], tick: Tick) -> NetworkFacts:
    """Finds what can be cut of a network, which is left as it is.

    Every group is tried, on a stand-in of random values: one without which the network does not compute what it should
    has to stay.

    Args:
        network: Any module.
        args: Positional arguments of its forward.
        kwargs: The named ones.
        tick: Hears of groups that were tried; may raise to end that.

    Raises:
        ShimError: BAD_DATA where the network does not run on them, or its graph cannot be followed.
    """
    modules = dict(network.named_modules())
    layers = {name: layer for name, module in modules.items() if (layer := describe_layer(module))}
    with _in_eval_mode(network):
        counted = run_layers(network, layers, lambda: network(*args, **kwargs))
        layers = {name: layer for name, layer in layers.items() if name in counted.factors} | _parameters_between(
            network
        )
        nodes = [(name, side) for name, layer in layers.items() for side in layer.sizes]
        channels = Channels([((name, side), layers[name].sizes[side]) for name, side in nodes])
        roots = [(name, side) for name, side in nodes if side != "in" and isinstance(modules.get(name), CUTTABLE)]
        unpaired = _tie(network, layers, channels)
        bound = couple(network, roots, channels, lambda: network(*args, **kwargs), tick)
        bound |= {label for node in unpaired for label in channels.of(node).tolist()}
    groups = [group for group in find_groups(channels, nodes) if not set(group.nodes).isdisjoint(roots)]
    places = find_places(groups)
    traced = Traced(modules, layers, {node: describe_axis(channels.of(node), places) for node in nodes}, bound)
    facts = NetworkFacts(
        [traced.describe_group(number, group) for number, group in enumerate(groups)],
        [traced.describe_tensor(*tensor) for tensor in _tensors(network)],
        traced.describe_operations(counted),
        [traced.describe_layer(name) for name, layer in layers.items() if layer.attributes],
    )
    args, kwargs = tree_map(_as_float32, (tuple(args), dict(kwargs)))
    with _in_eval_mode(network):
        return keep_what_fails(facts, network, lambda one: one(*args, **kwargs), tick)


def _tie(network: nn.Module, layers: Mapping[str, Layer], channels: Channels) -> list[Node]:
    """Joins the channels of layers that have a parameter in common; gives those whose channels do not pair."""
    unpaired: list[Node] = []
    for names in names_of_each(stored_tensors(network)).values():
        (first, leaf), *others = (name.rpartition(".")[::2] for name in names)
        for other, other_leaf in others:
            for ours, theirs in zip(_nodes_of(layers, first, leaf), _nodes_of(layers, other, other_leaf), strict=False):
                if channels.size(ours) == channels.size(theirs):
                    channels.join(ours, range(channels.size(ours)), theirs, range(channels.size(theirs)))
                else:
                    unpaired += [ours, theirs]
    return unpaired


def _nodes_of(layers: Mapping[str, Layer], owner: str, leaf: str) -> list[Node]:
    sides = layers[owner].axes.get(leaf, ()) if owner in layers else ()
    return [(owner, side) for side in sides if side is not None]


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _parameters_between(network: nn.Module) -> dict[str, Layer]:
    """Parameters that no layer owns, such as the scales of residual branches."""
    owned = {
        f"{name}.{leaf}"
        for name, module in network.named_modules()
        if (layer := describe_layer(module))
        for leaf in layer.axes
    }
    found = (
        (name, describe_parameter(parameter)) for name, parameter in network.named_parameters() if name not in owned
    )
    return {name: layer for name, layer in found if layer}


def _tensors(network: nn.Module) -> Iterator[tuple[str, Sequence[int], bool]]:
    """Parameters and stored buffers, by the first of their names: name, shape, and whether it is a buffer."""
    stored = stored_tensors(network)
    for name, names in names_of_each(stored).items():
        if name == names[0]:
            yield name, tuple(stored[name].shape), not isinstance(stored[name], nn.Parameter)


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        network.eval()
        # Fused, attention goes past its layers.
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module in training:
            module.training = True
