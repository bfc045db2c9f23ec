"""Runs a network of any kind on batches and gives what it returns."""

from collections.abc import Iterable

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.outputs import floating_tensors
from prunebridge_shim.networks.arguments import network_inputs
from prunebridge_shim.tensors import Ask, Tick


@torch.no_grad()
def forward_network(network: nn.Module, feed: Iterable[Ask], tick: Tick) -> int:
    """Runs a network on each batch and answers those that ask for its output; gives the number of batches.

    Raises:
        ShimError: BAD_DATA for a batch that the network cannot run, INVALID_REQUEST for one that asks for what only a
            causal language model gives.
    """
    done = 0
    for ask, arguments in network_inputs(feed, network):
        tick(done, 0)
        if ask.returns not in {"nothing", "output"}:
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"batch {done} asks for {ask.returns}, which only a causal language model gives",
                "ask for its output",
            )
        returned = arguments.run(network)
        if ask.returns == "output":
            ask.answer(floating_tensors(returned))
        done += 1
    return done
