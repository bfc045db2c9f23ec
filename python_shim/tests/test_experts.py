import numpy as np
import pytest
import torch
from tiny import as_feed, build, logits_of, no_tick, token_ids
from torch import nn

from prunebridge_shim.collect.experts import ROUTED
from prunebridge_shim.collect.hooks import HookPoint, attached, find_modules
from prunebridge_shim.collect.loop import collect_loop
from prunebridge_shim.collect.run import collect
from prunebridge_shim.errors import Reason, ShimError

PATHS = {
    "mixtral": "model.layers.1.mlp.experts",
    "qwen2_moe": "model.layers.1.mlp.experts",
    "qwen3_moe": "model.layers.1.mlp.experts",
    "gpt_oss": "model.layers.1.mlp.experts",
    "nemotron_h": "model.layers.1.mixer.experts",
}
HIDDEN, EXPERTS, IDLE, CHOSEN = 32, 6, 4, 2
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def open_model(family, dtype=torch.float32):
    return build(family).eval().requires_grad_(False).to(dtype)


def points_on(path):
    return [HookPoint(measure, path, measure) for measure in ROUTED]


def inner_of(family, experts, expert, x):
    """The gated activation of one expert as its paper has it, in float64."""
    if family == "gpt_oss":
        up = x @ experts.gate_up_proj[expert].double() + experts.gate_up_proj_bias[expert].double()
        gate, linear = up[:, ::2].clamp(max=7), up[:, 1::2].clamp(-7, 7)
        return gate * torch.sigmoid(1.702 * gate) * (linear + 1)
    if family == "nemotron_h":
        return (x @ experts.up_proj[expert].double().T).relu() ** 2
    gate, up = (x @ experts.gate_up_proj[expert].double().T).chunk(2, -1)
    return gate * torch.sigmoid(gate) * up


def outer_of(family, experts, expert, inner):
    down = experts.down_proj[expert].double()
    return inner @ down + experts.down_proj_bias[expert].double() if family == "gpt_oss" else inner @ down.T


def expected_of(family, experts, calls):
    """The three sums over calls of a module, expert by expert and token by token, in float64."""
    squares, norms, tokens = [], np.zeros(EXPERTS), np.zeros(EXPERTS)
    for expert in range(experts.num_experts):
        square = 0.0
        for hidden, index, weights in calls:
            at, choice = torch.where(index == expert)
            if not len(at):
                continue
            weight = weights[at, choice].double()[:, None]
            inner = inner_of(family, experts, expert, hidden[at].double())
            square = square + (inner * weight).abs().mean(0) ** 2
            norms[expert] += float((outer_of(family, experts, expert, inner) * weight).norm(dim=-1).sum())
            tokens[expert] += len(at)
        squares.append(square)
    width = next(len(square) for square in squares if isinstance(square, torch.Tensor))
    squares = [square if isinstance(square, torch.Tensor) else torch.zeros(width) for square in squares]
    return {"routed_mean_abs_square": np.stack(squares), "routed_output_norm": norms, "routed_tokens": tokens}


def output_of(family, experts, hidden, index, weights):
    """What the experts give, in float64."""
    output = torch.zeros(hidden.shape, dtype=torch.float64)
    for expert in range(experts.num_experts):
        at, choice = torch.where(index == expert)
        inner = inner_of(family, experts, expert, hidden[at].double())
        output[at] += outer_of(family, experts, expert, inner) * weights[at, choice].double()[:, None]
    return output


def random_routing(dtype, tokens=40):
    """Tokens and their experts, of which one gets none."""
    busy = torch.tensor([expert for expert in range(EXPERTS) if expert != IDLE])
    index = torch.stack([busy[torch.randperm(EXPERTS - 1)[:CHOSEN]] for _ in range(tokens)])
    return torch.randn(tokens, HIDDEN).to(dtype), index, torch.rand(tokens, CHOSEN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", PATHS)
def test_experts_give_what_they_give_and_are_measured(family, dtype):
    model = open_model(family, dtype)
    model.config._experts_implementation = "eager"
    points = points_on(PATHS[family])
    (experts, *_) = find_modules(model, points)
    calls = [random_routing(dtype) for _ in range(2)]
    eager = [experts(*call) for call in calls]
    with attached(points, [experts] * 3, model.base_model) as sums:
        ours = [experts(*call) for call in calls]
    for call, one, other in zip(calls, ours, eager, strict=True):
        assert one.dtype is other.dtype is dtype
        exact = output_of(family, experts, *call)
        assert (one - exact).norm() <= 1.1 * (other - exact).norm()
        assert dtype is not torch.float32 or torch.allclose(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))
    for measure, expected in expected_of(family, experts, calls).items():
        assert sums[measure].dtype is torch.float32
        assert np.allclose(sums[measure], expected, rtol=TOLERANCE[dtype])
        assert not sums[measure][IDLE].any()
        assert sums[measure][:IDLE].all()


@pytest.mark.parametrize("family", PATHS)
def test_a_model_runs_as_it_does_while_its_experts_are_measured(family, rng):
    model = open_model(family)
    points = points_on(PATHS[family])
    (experts, *_) = find_modules(model, points)
    ids = token_ids(rng)
    calls = []
    with experts.register_forward_pre_hook(lambda _, args: calls.append(args)):
        bare = logits_of(model, as_feed(ids))
    with attached(points, [experts] * 3, model.base_model):
        measured = logits_of(model, as_feed(ids))
    assert all(np.allclose(measured[key].array, bare[key].array, rtol=1e-4, atol=1e-5) for key in bare)
    done = collect(model, points, as_feed(ids), no_tick)
    for measure, expected in expected_of(family, experts, calls).items():
        assert np.allclose(done.sums[measure].array, expected, rtol=1e-4)
    assert done.sums["routed_tokens"].array.sum() == done.tokens * CHOSEN


def test_a_planted_expert_and_channel_stand_out(rng):
    model = open_model("mixtral")
    experts = model.model.layers[1].mlp.experts
    experts.gate_up_proj[2, 48 + 17] *= 100
    sums = collect(model, points_on(PATHS["mixtral"]), as_feed(token_ids(rng)), no_tick).sums
    assert sums["routed_mean_abs_square"].array[2].argmax() == 17
    assert (sums["routed_output_norm"].array / sums["routed_tokens"].array).argmax() == 2


def test_reductions_of_one_module_share_one_pass():
    experts = open_model("mixtral").model.layers[0].mlp.experts
    points, calls = points_on("0"), 0

    def count(*_):
        nonlocal calls
        calls += 1

    experts.act_fn.register_forward_hook(count)
    with attached([*points, HookPoint("again", "0", "routed_tokens")], [experts] * 4, nn.Identity()) as sums:
        experts(*random_routing(torch.float32))
        experts(*random_routing(torch.float32))
    assert calls == 2 * (EXPERTS - 1)
    assert torch.equal(sums["again"], sums["routed_tokens"])
    assert sums["again"].sum() == 2 * 40 * CHOSEN


def test_experts_that_run_elsewhere_are_passed_over():
    experts = open_model("mixtral").model.layers[0].mlp.experts
    hidden, index, weights = random_routing(torch.float32)
    elsewhere = torch.where(index == 1, EXPERTS, index)
    with attached(points_on("0"), [experts] * 3, nn.Identity()) as sums:
        output = experts(hidden, elsewhere, weights)
    expected = experts(hidden, index, torch.where(index == 1, 0.0, weights))
    assert torch.allclose(output, expected, atol=1e-6)
    assert sums["routed_tokens"][1] == 0


def test_the_modules_own_forward_is_back_whatever_happens():
    experts = open_model("gpt_oss").model.layers[0].mlp.experts
    with pytest.raises(ZeroDivisionError), attached(points_on("0"), [experts] * 3, nn.Identity()):
        assert "forward" in vars(experts)
        raise ZeroDivisionError
    assert "forward" not in vars(experts)


def test_a_module_that_runs_no_experts():
    model = open_model("mixtral")
    for path in ["model.layers.0.mlp", "model.layers.0.mlp.gate"]:
        with pytest.raises(ShimError, match=f"{path} is Mixtral.*, within which routed") as caught:
            find_modules(model, points_on(path))
        assert caught.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("qwen2_moe", "model.layers.1.mlp.shared_expert.down_proj"),
        ("nemotron_h", "model.layers.1.mixer.shared_experts.down_proj"),
    ],
)
def test_the_sample_of_a_shared_expert_is_one_sequence(family, path, rng):
    model = open_model(family)
    ids = token_ids(rng)
    inputs = []
    with model.get_submodule(path).register_forward_pre_hook(lambda _, args: inputs.append(args[0])):
        logits_of(model, as_feed(ids))
    sums = collect(model, [HookPoint("k", path, "mean_abs_square_in")], as_feed(ids), no_tick).sums["k"].array
    means = [x.reshape(2, 9, -1).double().abs().mean(1) for x in inputs]
    assert np.allclose(sums, sum((mean**2).sum(0) for mean in means), rtol=1e-5)


@pytest.mark.parametrize("with_ids", [True, False], ids=["after token ids", "alone"])
def test_the_sample_is_one_sequence_of_embeddings_too(with_ids, rng):
    model = open_model("qwen2_moe")
    path = "model.layers.1.mlp.shared_expert.down_proj"
    (ids,) = token_ids(rng, batches=1, rows=4, length=6)
    embeds = model.get_input_embeddings()(torch.from_numpy(ids))

    def loop(model):
        if with_ids:
            model(torch.from_numpy(ids.reshape(2, 12)))
        model(inputs_embeds=embeds)

    point = HookPoint("k", path, "mean_abs_square_in")
    done = collect_loop(model, [point], loop, no_tick)
    fed = as_feed([ids.reshape(2, 12), ids] if with_ids else [ids])
    assert np.array_equal(done.sums["k"].array, collect(model, [point], fed, no_tick).sums["k"].array)
    assert done.tokens == 24 * len(fed)


def test_an_activation_of_other_tokens_than_the_batchs(rng):
    model = open_model("mixtral")
    model.config._experts_implementation = "grouped_mm"
    point = HookPoint("k", "model.layers.0.mlp.experts.act_fn", "mean_abs_square_in")
    with pytest.raises(ShimError, match=r"act_fn is \[36, 48\]; .* of all tokens of the batch") as caught:
        collect(model, [point], as_feed(token_ids(rng)), no_tick)
    assert caught.value.reason is Reason.BAD_TENSOR
