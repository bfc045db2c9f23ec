"""Vision models of transformers: all of their channels but the classes can be cut, and what is left is right."""

import numpy as np
import pytest
import torch
import transformers as tf
from cut_network import most_important
from networks import randomized
from test_traced_networks import selections
from tiny import no_tick
from torch.utils.flop_counter import FlopCounterMode

from prunebridge_shim.networks.cut import cut, size_of
from prunebridge_shim.networks.trace import trace
from prunebridge_shim.networks.trial import norms_apart, zero

IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
MODELS = {
    "ResNet-basic": ("ResNet", {**STAGES, "layer_type": "basic"}),
    "ResNet-bottleneck": ("ResNet", {**STAGES, "hidden_sizes": [16, 32]}),
    "ConvNext": ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
    "MobileNetV1": ("MobileNetV1", {"depth_multiplier": 0.25}),
    "MobileNetV2": ("MobileNetV2", {"depth_multiplier": 0.35}),
    "RegNet-x": ("RegNet", {**STAGES, "groups_width": 4, "layer_type": "x"}),
    "RegNet-y": ("RegNet", {**STAGES, "groups_width": 4, "layer_type": "y"}),
}


def build(name):
    torch.manual_seed(2)
    family, sizes = MODELS[name]
    kind = getattr(tf, f"{family}ForImageClassification")
    return randomized(kind(kind.config_class(**sizes, num_labels=5)))


@pytest.mark.parametrize("name", MODELS)
def test_all_but_the_classes_can_be_cut(name):
    model = build(name)
    facts = trace(model, (IMAGES,), {}, no_tick)
    assert [[one.module for one in group.outputs] for group in facts.groups if group.fixed] in (
        [["classifier"]],
        [["classifier.1"]],
    )
    for sizes in list(selections(facts))[:3]:
        kept = most_important(facts, sizes)
        child = cut(model, facts, kept)
        # Norms over channels feel those of zero.
        with norms_apart(child), norms_apart(whole := zero(model, facts, kept)), torch.no_grad():
            torch.testing.assert_close(child(IMAGES).logits, whole(IMAGES).logits, rtol=1e-4, atol=1e-4)
        with FlopCounterMode(display=False) as counter:
            child(IMAGES)
        counted = sum(2 * one.factor * np.prod([size_of(axis, kept) for axis in one.axes]) for one in facts.operations)
        assert counted == pytest.approx(counter.get_total_flops())
