"""Tries what tracing found: a network that is cut has to be the whole one with channels of zero."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from prunebridge_shim.networks.child import build_child
from prunebridge_shim.networks.cut import Kept, cut, positions
from prunebridge_shim.networks.facts import ChannelGroup, NetworkFacts
from prunebridge_shim.tensors import Tick

Run = Callable[[nn.Module], Any]

MIXING_NORMS = (nn.LayerNorm, nn.GroupNorm)
"""Norms over channels, through which what is zero makes itself felt in the others."""


def keep_what_fails(facts: NetworkFacts, network: nn.Module, run: Run, tick: Tick) -> NetworkFacts:
    """Facts in which each group is fixed that cannot be cut after all, since its layers mix channels in another way.

    Args:
        facts: What tracing found.
        network: In eval mode; left as it is.
        run: Runs a network on the dummy input.
        tick: Hears of groups that are known to be cut well, or not at all; may raise to end that.
    """
    free = [number for number, group in enumerate(facts.groups) if not group.fixed]
    with norms_apart(network), torch.no_grad():
        failing = set(_failing(facts, network, run, free, tick))
    groups = [replace(group, fixed=group.fixed or number in failing) for number, group in enumerate(facts.groups)]
    return replace(facts, groups=groups)


def _failing(facts: NetworkFacts, network: nn.Module, run: Run, free: Sequence[int], tick: Tick) -> Iterator[int]:
    """The groups that cannot be cut, among some that are cut at once where that goes well, and else in halves."""
    waiting, known = [list(free)], 0
    while waiting:
        tick(known, len(free))
        some = waiting.pop()
        kept = [
            _every_second(group) if number in some else range(group.channels)
            for number, group in enumerate(facts.groups)
        ]
        if len(some) == 0 or _computes_alike(facts, network, kept, run):
            known += len(some)
        elif len(some) == 1:
            known += 1
            yield some[0]
        else:
            middle = len(some) // 2
            waiting += [some[middle:], some[:middle]]


def zero(network: nn.Module, facts: NetworkFacts, kept: Kept) -> nn.Module:
    """A copy of a network in which the channels that do not stay are zero wherever a layer gives them."""
    child: nn.Module = build_child(network, {name: tensor.clone() for name, tensor in network.state_dict().items()}, {})
    stored = child.state_dict()
    for one in facts.tensors:
        if one.axes and not one.name.endswith("running_var"):
            gone = set(range(stored[one.name].shape[0])).difference(positions(one.axes[0], kept))
            stored[one.name][sorted(gone)] = 0
    return child


def _every_second(group: ChannelGroup) -> range:
    """Every second channel, or the first of each section: as many of each."""
    return range(0, group.channels, 2 if group.sections == 1 else group.channels // group.sections)


def _computes_alike(facts: NetworkFacts, network: nn.Module, kept: Kept, run: Run) -> bool:
    try:
        outputs = tree_leaves(run(cut(network, facts, kept)))
    except Exception:  # noqa: BLE001 whatever a network raises over sizes that do not fit
        return False
    expected = tree_leaves(run(zero(network, facts, kept)))
    pairs = zip(outputs, expected, strict=True)
    return all(_are_close(ours, theirs) for ours, theirs in pairs if isinstance(ours, torch.Tensor))


def _are_close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if ours.shape != theirs.shape or not theirs.is_floating_point():
        return ours.shape == theirs.shape
    tolerance = max(1e-3, 4 * torch.finfo(theirs.dtype).eps)
    return torch.allclose(ours, theirs, rtol=10 * tolerance, atol=tolerance * float(theirs.abs().max()))


@contextmanager
def norms_apart(network: nn.Module) -> Iterator[None]:
    """Has norms over channels pass them on as they are."""
    norms = [module for module in network.modules() if isinstance(module, MIXING_NORMS)]
    try:
        for norm in norms:
            norm.forward = _pass_on  # type: ignore[assignment,method-assign]
        yield
    finally:
        for norm in norms:
            del norm.forward


def _pass_on(x: torch.Tensor) -> torch.Tensor:
    return x
