"""Tracing: which channels are one, and that what is cut by it computes what it should."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_network import most_important
from networks import NETWORKS, Attending, Concatenating, Gated, Grouped, Upsampling, randomized
from safetensors.torch import load_file
from tiny import no_tick
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.cut import cut, size_of
from prunebridge_shim.networks.facts import Stretch
from prunebridge_shim.networks.trace import trace
from prunebridge_shim.networks.trial import zero

GOLDEN = Path(__file__).resolve().parents[2] / "test/golden/fastnas-resnet"
IMAGES = torch.randn(2, 3, 15, 15, generator=torch.Generator().manual_seed(5))


def selections(facts):
    """Some sizes that are legal, the least ones among them."""
    free = {number: group for number, group in enumerate(facts.groups) if not group.fixed}
    generator = np.random.default_rng(0)
    yield {number: group.sections for number, group in free.items()}
    for _ in range(4):
        yield {
            number: group.sections * int(generator.integers(1, group.channels // group.sections + 1))
            for number, group in free.items()
        }


def paths_of(group):
    return [one.module for one in group.outputs]


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_cut_network_is_the_whole_one_with_channels_of_zero(kind):
    network = randomized(kind())
    facts = trace(network, (IMAGES,), {}, no_tick)
    assert any(not group.fixed for group in facts.groups)
    for sizes in selections(facts):
        kept = most_important(facts, sizes)
        for ours, expected in zip(
            tree_leaves(cut(network, facts, kept)(IMAGES)), tree_leaves(zero(network, facts, kept)(IMAGES)), strict=True
        ):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("kind", NETWORKS)
def test_operations_are_those_that_torch_counts(kind):
    network = randomized(kind())
    facts = trace(network, (IMAGES,), {}, no_tick)
    for sizes in selections(facts):
        kept = most_important(facts, sizes)
        child = cut(network, facts, kept)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            child(IMAGES)
        counted = sum(2 * one.factor * np.prod([size_of(axis, kept) for axis in one.axes]) for one in facts.operations)
        assert counted == pytest.approx(counter.get_total_flops())
        elements = sum(
            np.prod([size_of(axis, kept) for axis in one.axes]) / one.blocks
            for one in facts.tensors
            if not one.is_buffer
        )
        assert elements == sum(parameter.numel() for parameter in child.parameters())


def test_channels_of_branches_are_groups_of_their_own():
    facts = trace(Concatenating(), (IMAGES,), {}, no_tick)
    assert [(paths_of(group), group.channels, group.fixed) for group in facts.groups] == [
        (["left"], 6, False),
        (["right"], 10, False),
        (["both"], 4, False),
        (["head"], 5, True),
    ]
    both = next(one for one in facts.tensors if one.name == "both.weight")
    assert both.axes[1] == (Stretch(0, 0, 6, 1), Stretch(1, 0, 10, 1))


def test_halves_that_gate_each_other_are_one_group():
    facts = trace(Gated(), (IMAGES,), {}, no_tick)
    project = next(one for one in facts.tensors if one.name == "project.weight")
    assert facts.groups[0].channels == 16
    assert project.axes[0] == (Stretch(0, 0, 16, 1), Stretch(0, 0, 16, 1))


def test_filters_of_a_grouped_convolution_are_cut_evenly():
    facts = trace(Grouped(), (IMAGES,), {}, no_tick)
    assert [(paths_of(group), group.sections) for group in facts.groups[:2]] == [(["first"], 4), (["grouped"], 4)]
    assert next(one for one in facts.tensors if one.name == "grouped.weight").blocks == 4


def test_products_of_attention_are_counted_and_stay():
    facts = trace(Attending(), (IMAGES,), {}, no_tick)
    (between,) = [one for one in facts.operations if not one.module]
    heads, tokens, channels = 4, 3, 4
    assert (between.factor, between.axes) == (2 * len(IMAGES) * heads * tokens * tokens * channels, ())
    assert [paths_of(group) for group in facts.groups if not group.fixed] == [["up"]]


def test_what_leaves_the_network_stays():
    facts = trace(Upsampling(), (IMAGES,), {}, no_tick)
    assert [(paths_of(group), group.fixed) for group in facts.groups] == [
        (["down"], False),
        (["up"], True),
        (["scores"], True),
    ]


def test_a_planted_channel_is_the_most_important():
    network = Grouped()
    with torch.no_grad():
        network.head.weight[:, 9] = 50
        network.grouped.weight[6, 1] = 50  # section 1 of the filters, its channel 1: channel 3 * 1 + 1
    facts = trace(network, (IMAGES,), {}, no_tick)
    assert facts.groups[1].importance.argmax() == 9
    assert facts.groups[0].importance.argmax() == 4


def test_a_network_is_left_as_it_was():
    network = Concatenating()
    network.left.requires_grad_(False)
    network.norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trace(network, (IMAGES,), {}, no_tick)
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == [
        "left.weight",
        "left.bias",
    ]
    assert [name for name, module in network.named_modules() if not module.training] == ["norm"]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


class Tied(nn.Module):
    """Two layers of one weight, called by the names of their arguments."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 5)
        self.second.weight = self.first.weight

    def forward(self, x):
        x = torch.relu(self.first(input=x.flatten(1)[:, :12]))
        return self.head(torch.relu(self.second(input=x)))


def test_tied_layers_stay_where_one_takes_what_enters():
    facts = trace(Tied(), (IMAGES,), {}, no_tick)
    assert [(paths_of(group), group.fixed) for group in facts.groups] == [
        (["first", "second"], True),
        (["head"], True),
    ]
    assert "second.weight" not in [one.name for one in facts.tensors]


class NoGraph(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).detach()


@pytest.mark.parametrize(
    ("network", "images", "message"),
    [
        (Concatenating(), torch.zeros(2, 4, 15, 15), "does not run on the dummy input"),
        (NoGraph(), IMAGES, "returns no tensor that depends on its parameters"),
    ],
)
def test_what_cannot_be_traced_is_refused(network, images, message):
    with pytest.raises(ShimError, match=message) as caught:
        trace(network, (images,), {}, no_tick)
    assert caught.value.reason is Reason.BAD_DATA


def test_the_golden_sensitivities():
    network = runpy.run_path(str(GOLDEN / "model.py"))["build"]()
    network.load_state_dict(load_file(GOLDEN / "weights.safetensors"))
    network.eval()
    data = load_file(GOLDEN / "data.safetensors")
    facts = trace(network, (data["x"][:1],), {}, no_tick)
    numbers = {group.outputs[0].module: number for number, group in enumerate(facts.groups)}

    @torch.no_grad()
    def loss(sizes):
        logits = cut(network, facts, most_important(facts, sizes))(data["x"])
        return 100 * (logits - data["logits"]).square().mean() / data["logits"].square().mean()

    for case in json.loads((GOLDEN / "case.json").read_text()).values():
        for name, expected in case["sensitivity_map"].items():
            number = numbers[name.rpartition(".")[0]]
            ours = [float(loss({number: int(size)})) for size in expected]
            falling = np.maximum.accumulate(ours[::-1])[::-1]
            np.testing.assert_allclose(falling, list(expected.values()), rtol=1e-3, atol=1e-6)


class TiedWithin(nn.Module):
    """The same, between layers of their own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.inner = nn.Conv2d(8, 8, 1, bias=False)
        self.again = nn.Conv2d(8, 8, 1)
        self.again.weight = self.inner.weight
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.head(torch.relu(self.again(torch.relu(self.inner(torch.relu(self.first(x)))))))


def test_layers_of_one_weight_are_cut_together():
    network = TiedWithin()
    facts = trace(network, (IMAGES,), {}, no_tick)
    assert [(paths_of(group), group.fixed) for group in facts.groups] == [
        (["first", "inner", "again"], False),
        (["head"], True),
    ]
    kept = [[1, 2, 6], [0, 1, 2, 3]]
    torch.testing.assert_close(cut(network, facts, kept)(IMAGES), zero(network, facts, kept)(IMAGES))
