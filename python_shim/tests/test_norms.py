"""Calibration: running statistics become the mean over the batches, and nothing else changes."""

import pytest
import torch
from networks import Depthwise, Plain
from tiny import no_tick
from torch import nn
from user_networks import images, run_images, run_in_eval_mode

from prunebridge_shim.errors import Reason, ShimError, cancelled
from prunebridge_shim.networks.norms import calibrate_norms

IMAGES = images()


class Dropping(nn.Module):
    """A norm whose input is easily told, one without statistics, one that never runs, and dropout."""

    def __init__(self):
        super().__init__()
        self.norm, self.instance = nn.BatchNorm2d(3, momentum=0.3), nn.InstanceNorm2d(3, track_running_stats=True)
        self.without = nn.BatchNorm2d(3, track_running_stats=False)
        self.unused = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.without(self.instance(self.norm(self.drop(x))))


def states(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_statistics_are_the_mean_over_the_batches():
    network = Dropping().eval()
    network.unused.running_mean.fill_(7)
    before = states(network)
    done = calibrate_norms(network, run_images, no_tick)
    assert (done.batches, done.layers) == (3, 3)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in IMAGES]).mean(0)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in IMAGES]).mean(0)
    torch.testing.assert_close(network.norm.running_mean, means)
    torch.testing.assert_close(network.norm.running_var, variances)
    normed = [network.norm.train()(batch) for batch in IMAGES]
    torch.testing.assert_close(
        network.instance.running_mean, torch.stack([one.mean((0, 2, 3)) for one in normed]).mean(0)
    )
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"norm", "instance"}
    assert network.norm.momentum == 0.3


def test_modes_and_random_states_come_back():
    network = Dropping().train()
    network.drop.eval()
    state = torch.get_rng_state()
    calibrate_norms(network, run_images, no_tick)
    assert network.norm.training
    assert not network.drop.training
    assert torch.equal(torch.get_rng_state(), state)


def test_what_fails_changes_nothing():
    network = Depthwise().eval()
    before = states(network)

    def stop(done, _total):
        if done == 2:
            raise cancelled()

    for loop, tick, reason in (
        (run_images, stop, Reason.CANCELLED),
        (run_in_eval_mode, no_tick, Reason.BAD_DATA),
        (lambda _: None, no_tick, Reason.BAD_DATA),
    ):
        with pytest.raises(ShimError) as caught:
            calibrate_norms(network, loop, tick)
        assert caught.value.reason is reason
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        assert network.norm.momentum == 0.1
        assert not network.norm._forward_pre_hooks


def test_a_network_without_statistics_is_not_run():
    network = Plain()
    network[3] = nn.Identity()

    def loop(_):
        raise AssertionError("it was run")

    assert calibrate_norms(network, loop, no_tick).layers == 0
