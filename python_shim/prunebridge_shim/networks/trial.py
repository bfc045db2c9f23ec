"""Tries what tracing found: a network that is cut has to be the whole one with channels of zero."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from prunebridge_shim.errors import is_out_of_memory
from prunebridge_shim.networks.child import build_child
from prunebridge_shim.networks.cut import Kept, cut, positions, split_blocks
from prunebridge_shim.networks.facts import ChannelGroup, NetworkFacts
from prunebridge_shim.networks.stand_in import stand_in
from prunebridge_shim.tensors import Tick

Run = Callable[[nn.Module], Any]
Choose = Callable[[ChannelGroup], Sequence[int]]
"""Says which channels of a group stay, ascending, as many of each section."""

MIXING_NORMS = (nn.LayerNorm, nn.GroupNorm)
"""Norms over channels, through which what is zero makes itself felt in the others."""


def keep_what_fails(facts: NetworkFacts, network: nn.Module, run: Run, tick: Tick) -> NetworkFacts:
    """Facts in which each group is fixed that cannot be cut after all, since its layers mix channels in another way.

    Args:
        facts: What tracing found.
        network: In eval mode; left as it is.
        run: Runs a network in float32 on the dummy input.
        tick: Hears of groups that are known to be cut well, or not at all; may raise to end that.
    """
    free = [number for number, group in enumerate(facts.groups) if not group.fixed]
    tried = stand_in(network)
    with torch.no_grad():
        with norms_apart(tried):
            free = _going_together(free, lambda some: _cuts_well(facts, tried, some, run), tick)
        free = _going_together(free, lambda some: _runs(facts, tried, some, run), tick)
    groups = [replace(group, fixed=number not in free) for number, group in enumerate(facts.groups)]
    return replace(facts, groups=groups)


def _going_together(groups: Sequence[int], go: Callable[[Sequence[int]], bool], tick: Tick) -> list[int]:
    """The groups that go well with each other: all at once, and else in halves, each with those found before."""
    good: list[int] = []
    waiting, known = [list(groups)], 0
    while waiting:
        tick(known, len(groups))
        some = waiting.pop()
        if len(some) == 0 or go([*good, *some]):
            good += some
            known += len(some)
        elif len(some) == 1:
            known += 1
        else:
            middle = len(some) // 2
            waiting += [some[middle:], some[:middle]]
    return good


def zero(network: nn.Module, facts: NetworkFacts, kept: Kept) -> nn.Module:
    """A copy of a network in which the channels that do not stay are zero wherever a layer gives or takes them."""
    child: nn.Module = build_child(network, {name: tensor.clone() for name, tensor in network.state_dict().items()}, {})
    stored = child.state_dict()
    for one in facts.tensors:
        if one.axes and not one.name.endswith("running_var"):
            axes = [positions(axis, kept) for axis in one.axes]
            for block, of_block in split_blocks(stored[one.name], one.blocks, axes):
                for axis, stays in enumerate(of_block):
                    gone = sorted(set(range(block.shape[axis])).difference(stays))
                    block.index_fill_(axis, torch.tensor(gone, dtype=torch.long, device=block.device), 0)
    return child


def _every_second(group: ChannelGroup) -> Sequence[int]:
    """Every second channel, or the first of each section."""
    return range(0, group.channels, 2 if group.sections == 1 else group.channels // group.sections)


def _irregular_half(group: ChannelGroup) -> Sequence[int]:
    """Half of each section, of which no two have the same: what mixes heads may still share them out evenly."""
    generator = np.random.default_rng(group.channels)
    size = group.channels // group.sections
    halves = (np.sort(generator.permutation(size)[: (size + 1) // 2]) + at * size for at in range(group.sections))
    return [int(channel) for half in halves for channel in half]


def _kept(facts: NetworkFacts, some: Sequence[int], choose: Choose) -> Kept:
    chosen = set(some)
    return [choose(group) if number in chosen else range(group.channels) for number, group in enumerate(facts.groups)]


def _cuts_well(facts: NetworkFacts, network: nn.Module, some: Sequence[int], run: Run) -> bool:
    kept = (_kept(facts, some, choose) for choose in (_every_second, _irregular_half))
    return all(_computes_alike(facts, network, one, run) for one in kept)


def _computes_alike(facts: NetworkFacts, network: nn.Module, kept: Kept, run: Run) -> bool:
    outputs = _outputs(facts, network, kept, run)
    if outputs is None:
        return False
    expected = tree_leaves(run(zero(network, facts, kept)))
    pairs = zip(outputs, expected, strict=True)
    return all(_are_close(ours, theirs) for ours, theirs in pairs if isinstance(ours, torch.Tensor))


def _runs(facts: NetworkFacts, network: nn.Module, some: Sequence[int], run: Run) -> bool:
    return _outputs(facts, network, _kept(facts, some, _irregular_half), run) is not None


def _outputs(facts: NetworkFacts, network: nn.Module, kept: Kept, run: Run) -> list[Any] | None:
    """What a network returns that is cut, or None where it does not run."""
    try:
        return tree_leaves(run(cut(network, facts, kept)))
    except Exception as error:  # whatever a network raises over sizes that do not fit
        if is_out_of_memory(error):
            raise
        return None


def _are_close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if ours.shape != theirs.shape or not theirs.is_floating_point():
        return ours.shape == theirs.shape
    return torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3 * float(theirs.abs().max()))


@contextmanager
def norms_apart(network: nn.Module) -> Iterator[None]:
    """Has norms over channels scale all of them by one number, which those of zero do not change."""
    norms = [module for module in network.modules() if isinstance(module, MIXING_NORMS)]
    own = [vars(norm).get("forward") for norm in norms]
    try:
        for norm in norms:
            norm.forward = _scale  # type: ignore[method-assign]
        yield
    finally:
        for norm, forward in zip(norms, own, strict=True):
            if forward is None:
                del norm.forward
            else:
                norm.forward = forward  # type: ignore[method-assign]


def _scale(*given: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
    x = next(iter((*given, *named.values())))
    mean_square = x.square().sum() / x.count_nonzero().clamp(min=1)
    return x / mean_square.sqrt().clamp(min=1e-6)
