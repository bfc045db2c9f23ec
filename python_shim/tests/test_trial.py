"""What tracing has to see through: heads, shuffles, aliases, fused paths, and values that hide what is wrong."""

import pytest
import torch
from networks import randomized
from tiny import no_tick
from torch import nn

from prunebridge_shim.errors import ShimError, cancelled
from prunebridge_shim.networks.trace import trace

IMAGES = torch.randn(2, 3, 15, 15, generator=torch.Generator().manual_seed(5))
TOKENS = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(6))


def free_outputs(network, *args):
    groups = trace(randomized(network), args, {}, no_tick).groups
    return [one.module for group in groups if not group.fixed for one in group.outputs]


class AnyHeads(nn.Module):
    """Attention that runs with any number of channels that its heads share evenly, as it was before training."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=0.02)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)
        nn.init.zeros_(self.down.weight)

    def forward(self, x):
        heads = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        x = self.out(nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_not_mixed(dtype):
    assert free_outputs(AnyHeads().to(dtype), TOKENS.to(dtype)) == ["up"]


class Shuffled(nn.Module):
    """Pixels made of channels, and split among layers."""

    def __init__(self):
        super().__init__()
        self.wide, self.left, self.right = nn.Conv2d(3, 32, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        left, right = nn.functional.pixel_shuffle(self.wide(x), 2).split([6, 2], 1)
        return self.head(torch.relu(self.left(left) + self.right(right)).mean((2, 3)))


def test_shuffled_channels_stay():
    assert free_outputs(Shuffled(), IMAGES) == ["left", "right"]


class Softly(nn.Module):
    """Activations that give something for nothing, and a transposed convolution without a norm behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.up, self.last = nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 2), nn.Conv2d(6, 5, 1)

    def forward(self, x):
        return self.last(nn.functional.softplus(self.up(torch.sigmoid(self.first(x))))).mean((2, 3))


def test_activations_may_give_something_for_nothing():
    assert free_outputs(Softly(), IMAGES) == ["first", "up"]


class Aliased(nn.Module):
    """Layers under two names."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.features = nn.Sequential(self.conv, self.norm)

    def forward(self, x):
        return self.head(torch.relu(self.features(x)).mean((2, 3)))


def test_layers_of_two_names_are_cut():
    assert free_outputs(Aliased(), IMAGES) == ["conv"]


def test_a_depthwise_transposed_convolution_is_counted_once():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8), nn.Conv2d(8, 5, 1))
    facts = trace(network, (IMAGES,), {}, no_tick)
    (up,) = [one for one in facts.operations if one.module == "1"]
    assert up.factor * 8 * 8 == IMAGES[:, 0].numel() * 8 * 4


def test_fused_attention_is_counted():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    facts = trace(nn.Sequential(layer, nn.Linear(16, 5)), (TOKENS,), {}, no_tick)
    assert {"0.linear1", "0.linear2", "1"} <= {one.module for one in facts.operations}
    assert torch.backends.mha.get_fastpath_enabled()


class Renamed(nn.LayerNorm):
    def forward(self, features):
        return super().forward(features)


class Named(nn.Module):
    """A norm that is called by the name of its argument, through a forward of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(16, 12), Renamed(12), nn.Linear(12, 5)
        self.own = self.norm.forward = self.norm.forward

    def forward(self, x):
        return self.head(self.norm(features=self.first(x)))


def test_norms_are_called_as_they_are_and_keep_their_forward():
    network = Named()
    assert "first" in free_outputs(network, TOKENS)
    assert vars(network.norm)["forward"] is network.own


class FailingLater(nn.Module):
    """Runs as often as it is counted, and not as it is followed."""

    def __init__(self, error):
        super().__init__()
        self.layer, self.head, self.error = nn.Linear(16, 8), nn.Linear(8, 5), error

    def forward(self, x):
        x = self.layer(x)
        if torch.is_grad_enabled():
            raise self.error
        return self.head(x)


@pytest.mark.parametrize(("error", "raised"), [(ValueError("no"), ShimError), (MemoryError(), MemoryError)])
def test_no_hook_is_left_where_the_network_fails(error, raised):
    network = FailingLater(error)
    with pytest.raises(raised):
        trace(network, (TOKENS,), {}, no_tick)
    assert not any(module._forward_hooks for module in network.modules())


class ScarceWhenTried(nn.Module):
    """Has no room for what is cut."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x):
        if self.layer.out_features != 8:
            raise MemoryError
        return self.head(self.layer(x))


def test_want_of_memory_fixes_nothing():
    with pytest.raises(MemoryError):
        trace(ScarceWhenTried(), (TOKENS,), {}, no_tick)


def test_following_ends_where_it_is_asked_to():
    heard = []

    def tick(done, total):
        heard.append((done, total))
        if len(heard) == 2:
            raise cancelled()

    with pytest.raises(ShimError, match="cancelled"):
        trace(Aliased(), (IMAGES,), {}, tick)
    assert heard == [(0, 2), (1, 2)]
