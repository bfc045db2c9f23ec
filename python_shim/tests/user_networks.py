"""Functions that a user could build networks by."""

import networks
import torch
from torch import nn


def build(kind, seed=0):
    torch.manual_seed(seed)
    return networks.randomized(getattr(networks, kind)())


def tied():
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    network[2].weight = network[0].weight
    return network


def on_meta():
    return nn.Linear(3, 4, device="meta")


def no_module():
    return {"weight": torch.zeros(3)}


def planted(network):
    """A score that tells which network it is given."""
    assert not network.training
    with torch.no_grad():
        return float(network(torch.ones(1, 3, 15, 15)).sum())


def images(count=3, channels=3):
    """Batches of images, each brighter than the one before."""
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(4, channels, 15, 15, generator=generator) + at for at in range(count)]


def wrong_images():
    return images(channels=2)


def run_images(network):
    for batch in images():
        network(batch)


def run_in_eval_mode(network):
    network.eval()
    run_images(network)


ONLY = nn.Linear(3, 4)


def always_the_same():
    return ONLY
