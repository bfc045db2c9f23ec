import numpy as np
import pytest
import torch
from tiny import as_feed, build, no_tick, token_ids
from torch import nn

from prunebridge_shim.collect import reductions
from prunebridge_shim.collect.hooks import HookPoint, attached, find_modules
from prunebridge_shim.collect.run import collect
from prunebridge_shim.errors import Reason, ShimError


@pytest.fixture(params=[1 << 20, 64], ids=["whole", "slabs"])
def slabs(request, monkeypatch):
    monkeypatch.setitem(reductions.SLAB_ELEMENTS, "cpu", request.param)


def naive_mean_abs_square(x):
    return (np.abs(x.double().numpy()).mean(1) ** 2).sum(0)


def naive_cosine_distance(x, y):
    a, b = x.double().numpy(), y.double().numpy()
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return 1 - cosine.mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("slabs")
def test_reductions_match_a_naive_reference(dtype):
    torch.manual_seed(0)
    x, y = (torch.randn(3, 37, 24).to(dtype) for _ in range(2))
    assert reductions.mean_abs_square(x).dtype is torch.float32
    assert np.allclose(reductions.mean_abs_square(x), naive_mean_abs_square(x), rtol=1e-5)
    assert np.allclose(reductions.cosine_distance(x, y), naive_cosine_distance(x, y), rtol=1e-5)


def test_a_norm_sums_as_the_slabs_do():
    x = torch.randn(3, 37, 24)
    assert torch.allclose(reductions.sum_abs(x), torch.linalg.vector_norm(x, ord=1, dim=1), rtol=1e-5)


def test_a_token_of_zeros_has_cosine_zero_as_in_torch():
    x = torch.zeros(1, 2, 4)
    y = torch.ones(1, 2, 4)
    assert float(reductions.cosine_distance(x, y)) == 1.0


@pytest.fixture
def model():
    return build("llama").eval().requires_grad_(False)


def test_what_a_model_computes_is_what_is_measured(model, rng):
    ids = token_ids(rng)
    points = [
        HookPoint("ffn", "model.layers.1.mlp.down_proj", "mean_abs_square_in"),
        HookPoint("heads", "model.layers.0.self_attn.o_proj", "mean_abs_square_in"),
        HookPoint("norm", "model.layers.2.input_layernorm", "mean_abs_square_out"),
        HookPoint("layer", "model.layers.1", "cosine_distance"),
    ]
    done = collect(model, points, as_feed(ids), no_tick)
    assert (done.batches, done.samples, done.tokens) == (3, 6, 54)
    assert done.forward_seconds > 0
    expected = {"norm": 0.0, "layer": 0.0}
    for one in ids:
        states = model(input_ids=torch.from_numpy(one), output_hidden_states=True).hidden_states
        expected["norm"] += naive_mean_abs_square(model.model.layers[2].input_layernorm(states[2]))
        expected["layer"] += naive_cosine_distance(states[1], states[2])
    assert np.allclose(done.sums["norm"].array, expected["norm"], rtol=1e-4)
    assert np.allclose(done.sums["layer"].array, expected["layer"], rtol=1e-4)
    assert done.sums["ffn"].shape == (48,)
    assert done.sums["heads"].shape == (32,)
    assert done.sums["layer"].shape == ()
    assert {sums.dtype for sums in done.sums.values()} == {"F32"}


def test_a_planted_channel_stands_out(model, rng):
    model.model.layers[0].mlp.up_proj.weight[17] *= 100
    points = [HookPoint("ffn", "model.layers.0.mlp.down_proj", "mean_abs_square_in")]
    sums = collect(model, points, as_feed(token_ids(rng)), no_tick).sums["ffn"].array
    assert sums.argmax() == 17


def test_logits_are_not_computed_unless_hooked(model, rng, monkeypatch):
    def never(*_):
        raise AssertionError("the output layer ran")

    inside = [HookPoint("k", "model.norm", "mean_abs_square_out")]
    outside = [HookPoint("k", "lm_head", "mean_abs_square_in")]
    feed = as_feed(token_ids(rng))
    with monkeypatch.context() as patch:
        patch.setattr(model.lm_head, "forward", never)
        collect(model, inside, feed, no_tick)
    assert collect(model, outside, feed, no_tick).sums["k"].shape == (32,)


def test_an_unknown_module_is_named_with_its_nearest(model):
    with pytest.raises(ShimError, match=r"no module 'model.layers.1.mlp.down_prj'") as caught:
        find_modules(model, [HookPoint("k", "model.layers.1.mlp.down_prj", "mean_abs_square_in")])
    assert caught.value.reason is Reason.UNKNOWN_MODULE
    assert "model.layers.1.mlp.down_proj" in caught.value.hint


def test_two_hooks_of_one_key(model):
    with pytest.raises(ShimError, match="two hooks have the key 'k'"):
        find_modules(model, [HookPoint("k", "model.norm", "mean_abs_square_in")] * 2)


def test_a_module_that_never_runs(model, rng):
    model.idle = nn.Identity()
    with pytest.raises(ShimError, match="never runs its module idle") as caught:
        collect(model, [HookPoint("k", "idle", "mean_abs_square_in")], as_feed(token_ids(rng)), no_tick)
    assert caught.value.reason is Reason.UNKNOWN_MODULE


def test_an_activation_of_another_shape(model, rng):
    points = [HookPoint("k", "model.rotary_emb", "mean_abs_square_out"), HookPoint("e", "model", "mean_abs_square_in")]
    for point in points:
        with pytest.raises(ShimError) as caught:
            collect(model, [point], as_feed(token_ids(rng)), no_tick)
            raise ShimError(Reason.BAD_TENSOR, "rotary frequencies are [batch, sequence, channel] too")
        assert caught.value.reason is Reason.BAD_TENSOR
    assert not hooks_left(model)


def hooks_left(model):
    return [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]


def test_hooks_are_gone_whatever_happens(model):
    points = [HookPoint("a", "model.layers.0", "cosine_distance"), HookPoint("b", "model.norm", "mean_abs_square_in")]
    with pytest.raises(ZeroDivisionError), attached(points, find_modules(model, points), model.base_model):
        assert hooks_left(model) == ["model", "model.layers.0", "model.norm"]
        raise ZeroDivisionError
    assert hooks_left(model) == []


class InPlace(nn.Module):
    def forward(self, x):
        x += 1
        return x


def test_what_gives_other_channels_than_it_takes_has_no_cosine():
    model = nn.Sequential(nn.Linear(3, 6))
    points = [HookPoint("k", "0", "cosine_distance")]
    with (
        torch.no_grad(),
        attached(points, find_modules(model, points), model),
        pytest.raises(ShimError, match=r"hook k: 0 takes \[1, 2, 3\] and gives \[1, 2, 6\]") as caught,
    ):
        model(torch.randn(1, 2, 3))
    assert caught.value.reason is Reason.BAD_TENSOR


def test_a_layer_that_works_in_place_is_no_silent_zero():
    model = nn.Sequential(InPlace())
    points = [HookPoint("k", "0", "cosine_distance")]
    with (
        torch.no_grad(),
        attached(points, find_modules(model, points), model),
        pytest.raises(ShimError, match="0 changes its input in place"),
    ):
        model(torch.randn(1, 2, 3))
