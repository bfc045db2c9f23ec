"""Takes the running statistics of normalisation layers anew."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.ticking import ticking
from prunebridge_shim.models.undisturbed import undisturbed
from prunebridge_shim.tensors import Tick

KINDS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


@dataclass
class Calibrated:
    """The runs of the network, and its layers that have running statistics."""

    batches: int
    layers: int


def find_norms(network: nn.Module) -> list[Any]:
    """The layers that have running statistics."""
    return [one for one in network.modules() if isinstance(one, KINDS) and one.running_mean is not None]


def calibrate_norms(network: nn.Module, loop: Callable[[nn.Module], None], tick: Tick) -> Calibrated:
    """Has a loop run a network whose normalisation layers alone are in training mode.

    Running statistics become the mean over the runs; those of a layer that never runs stay. Nothing else changes, and
    nothing at all where the loop fails.

    Args:
        network: A network.
        loop: Runs it on each batch. It is not called where no layer has running statistics.
        tick: Ticks at each run; may raise to end that.

    Raises:
        ShimError: BAD_DATA for a loop that runs no such layer in training mode, and what the loop raises.
    """
    norms = find_norms(network)
    done = Calibrated(0, len(norms))
    if not norms:
        return done

    def count(batches: float, total: float) -> None:
        done.batches = int(batches)
        tick(batches, total)

    with undisturbed(network), ticking(network, count), _averaging(norms) as runs:
        for norm in norms:
            norm.training = True
        loop(network)
        if not any(runs.values()):
            raise ShimError(
                Reason.BAD_DATA,
                f"the loop ran none of the {len(norms)} normalisation layers in training mode",
                "run the network as it is given, on at least one batch",
            )
    return done


@contextmanager
def _averaging(norms: Sequence[Any]) -> Iterator[dict[Any, int]]:
    """Has layers average over their runs; gives how many each has made. What fails leaves their statistics alone."""
    runs = dict.fromkeys(norms, 0)
    before = [(norm, norm.momentum, {name: one.clone() for name, one in _statistics(norm).items()}) for norm in norms]

    def average(norm: Any, _given: Any) -> None:
        if norm.training:
            if not runs[norm]:
                norm.reset_running_stats()
            runs[norm] += 1
            norm.momentum = 1 / runs[norm]

    handles = [norm.register_forward_pre_hook(average) for norm in norms]
    try:
        yield runs
    except BaseException:
        for norm, _, statistics in before:
            for name, one in _statistics(norm).items():
                one.copy_(statistics[name])
        raise
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum, _ in before:
            norm.momentum = momentum


def _statistics(norm: Any) -> dict[str, torch.Tensor]:
    return {name: one for name, one in norm.named_buffers(recurse=False) if one is not None}
