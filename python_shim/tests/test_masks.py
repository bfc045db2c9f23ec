"""Gradients of masks, against a plain and slow reference."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention
import transformers as tf
from tiny import COMMON, VOCAB, as_feed, build, no_tick, token_ids
from torch.utils.checkpoint import checkpoint

from prunebridge_shim.collect.gradients import collect_gradients
from prunebridge_shim.collect.masks import Mask
from prunebridge_shim.collect.reductions import sum_products
from prunebridge_shim.collect.steps import feed_steps
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.losses import built_in_loss
from prunebridge_shim.tensors import Ask, HostTensor

LLAMA = (("model.layers.{}.self_attn.o_proj", "input", 4), ("model.layers.{}.mlp.down_proj", "input", 48))
BERT = (("attention.output.dense", "input", 4), ("intermediate.dense", "output", 48))
PLACES = {
    "llama": LLAMA,
    "qwen3": LLAMA,
    "bert": [(f"bert.encoder.layer.{{}}.{path}", *rest) for path, *rest in BERT],
    "bert-classes": [(f"bert.encoder.layer.{{}}.{path}", *rest) for path, *rest in BERT],
    "bert-headless": [(f"encoder.layer.{{}}.{path}", *rest) for path, *rest in BERT],
    "gptj": (("transformer.h.{}.attn.out_proj", "input", 4), ("transformer.h.{}.mlp.fc_in", "output", 48)),
}


def masks_of(name, layers=(0, 1, 2)):
    """One on the heads and one on the FFN of each layer."""
    places = [(path.format(layer), side, units) for layer in layers for path, side, units in PLACES[name]]
    return [Mask(f"{path}/{units}", path, side, units) for path, side, units in places]


def by(name):
    return lambda output, example: built_in_loss(name, output, example)


def collected(model, masks, feed, loss="causal_lm"):
    judge = by(loss) if isinstance(loss, str) else loss
    return collect_gradients(model, masks, feed_steps(model, feed, judge, with_labels=False), no_tick)


def labelled(ids, labels):
    return [
        Ask({"input_ids": HostTensor("I64", one), "labels": HostTensor("F32" if of.dtype == np.float32 else "I64", of)})
        for one, of in zip(ids, labels, strict=True)
    ]


def with_mask(module, mask, factors):
    """Multiplies what the mask is on by one factor for each unit, as plainly as can be."""

    def scaled(x):
        return x * factors.repeat_interleave(x.shape[-1] // mask.units).to(x.dtype)

    if mask.side == "input":
        return module.register_forward_pre_hook(lambda _module, args: (scaled(args[0]),))
    return module.register_forward_hook(lambda _module, _args, output: scaled(output))


def slow_sums(model, mask, batches, loss_of, epsilon=1e-4):
    """Each unit by itself: the slope of each batch's loss along its factor, squared and summed over batches."""
    module = model.get_submodule(mask.module)
    sums = np.zeros(mask.units)
    for unit in range(mask.units):
        for batch in batches:
            losses = []
            for step in (epsilon, -epsilon):
                factors = torch.ones(mask.units, dtype=torch.float64)
                factors[unit] += step
                handle = with_mask(module, mask, factors)
                with torch.no_grad():
                    losses.append(loss_of(batch).item())
                handle.remove()
            sums[unit] += ((losses[0] - losses[1]) / (2 * epsilon)) ** 2
    return sums


@pytest.fixture
def in_float64(monkeypatch):
    """Models turn some of their activations to torch.float32 by its name, which no finite difference survives."""
    monkeypatch.setattr(torch, "float32", torch.float64)


@pytest.mark.parametrize("name", ["bert", "gptj", "llama", "qwen3"])
@pytest.mark.usefixtures("in_float64")
def test_sums_are_those_of_finite_differences(name, rng):
    model = build(name).eval().double()
    ids = token_ids(rng, batches=2)
    masks = masks_of(name, layers=(0, 2))
    done = collected(model, masks, as_feed(ids))
    assert (done.batches, done.samples, done.tokens) == (2, 4, 36)

    def loss_of(batch):
        batch = torch.from_numpy(batch)
        logits = model(input_ids=batch).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))

    assert done.loss == pytest.approx(np.mean([loss_of(batch).item() for batch in ids]), rel=1e-6)
    for mask in masks:
        sums = slow_sums(model, mask, ids, loss_of)
        assert sums.max() > 1e-8
        # A hundredth is what was promised; float32 sums give this.
        np.testing.assert_allclose(done.sums[mask.key].array, sums, rtol=1e-4, atol=sums.max() * 1e-6)


def autograd_sums(model, masks, batches, loss_of):
    """What torch itself gives for factors of one."""
    ones = [torch.ones(mask.units, requires_grad=True) for mask in masks]
    handles = [
        with_mask(model.get_submodule(mask.module), mask, factors) for mask, factors in zip(masks, ones, strict=True)
    ]
    sums = [torch.zeros(mask.units) for mask in masks]
    for batch in batches:
        for total, gradient in zip(sums, torch.autograd.grad(loss_of(batch), ones), strict=True):
            total.add_(gradient.square())
    for handle in handles:
        handle.remove()
    return sums


@pytest.mark.parametrize(
    ("name", "loss", "labels_of"),
    [
        ("llama", "causal_lm", lambda rng, ids: np.where(rng.random(ids.shape) < 0.5, -100, ids)),
        ("bert", "masked_lm", lambda rng, ids: np.where(rng.random(ids.shape) < 0.5, -100, ids)),
        ("bert-classes", "sequence_classification", lambda rng, ids: rng.integers(0, 3, len(ids))),
    ],
)
def test_built_in_losses_are_those_of_transformers(name, loss, labels_of, rng):
    model = build(name).eval()
    ids = token_ids(rng)
    labels = [labels_of(rng, one) for one in ids]
    masks = masks_of(name)
    done = collected(model, masks, labelled(ids, labels), loss)

    def loss_of(batch):
        one, of = map(torch.from_numpy, batch)
        return model(input_ids=one, labels=of).loss

    sums = autograd_sums(model, masks, list(zip(ids, labels, strict=True)), loss_of)
    for mask, expected in zip(masks, sums, strict=True):
        torch.testing.assert_close(torch.from_numpy(done.sums[mask.key].array), expected, rtol=1e-3, atol=1e-8)


def test_padding_is_not_to_be_predicted(rng):
    model = build("llama").eval()
    ids = token_ids(rng)
    seen = [np.ones_like(one) for one in ids]
    for mask in seen:
        mask[0, 5:] = 0
    masks = masks_of("llama")
    padded = [
        Ask({"input_ids": HostTensor("I64", one), "attention_mask": HostTensor("I64", mask)})
        for one, mask in zip(ids, seen, strict=True)
    ]
    done = collected(model, masks, padded)

    def loss_of(batch):
        one, mask = map(torch.from_numpy, batch)
        return model(input_ids=one, attention_mask=mask, labels=one.masked_fill(mask == 0, -100)).loss

    sums = autograd_sums(model, masks, list(zip(ids, seen, strict=True)), loss_of)
    for mask, expected in zip(masks, sums, strict=True):
        torch.testing.assert_close(torch.from_numpy(done.sums[mask.key].array), expected, rtol=1e-3, atol=1e-8)


def test_a_headless_model_is_compared_with_what_it_should_give(rng):
    model = build("bert-headless").eval()
    ids = token_ids(rng)
    labels = [rng.standard_normal((2, 9, 32)).astype(np.float32) for _ in ids]
    masks = masks_of("bert-headless")
    done = collected(model, masks, labelled(ids, labels), "mse")

    def loss_of(batch):
        one, of = map(torch.from_numpy, batch)
        return (model(input_ids=one).last_hidden_state - of).square().mean()

    sums = autograd_sums(model, masks, list(zip(ids, labels, strict=True)), loss_of)
    for mask, expected in zip(masks, sums, strict=True):
        torch.testing.assert_close(torch.from_numpy(done.sums[mask.key].array), expected, rtol=1e-3, atol=1e-8)


def test_a_module_that_runs_more_than_once_has_one_mask(rng):
    torch.manual_seed(3)
    config = tf.AlbertConfig(**COMMON, embedding_size=16, num_labels=3)
    model = tf.AlbertForSequenceClassification(config).eval()
    ids, labels = token_ids(rng), [np.array([0, 2])] * 3
    shared = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    masks = [Mask("h", f"{shared}.attention.dense", "input", 4), Mask("f", f"{shared}.ffn", "output", 48)]
    done = collected(model, masks, labelled(ids, labels), "sequence_classification")

    def loss_of(batch):
        one, of = map(torch.from_numpy, batch)
        return model(input_ids=one, labels=of).loss

    sums = autograd_sums(model, masks, list(zip(ids, labels, strict=True)), loss_of)
    for mask, expected in zip(masks, sums, strict=True):
        assert expected.max() > 1e-8
        torch.testing.assert_close(torch.from_numpy(done.sums[mask.key].array), expected, rtol=1e-3, atol=1e-9)


def test_layers_that_are_run_again_for_backward_count_once(rng):
    model, ids = build("llama").eval(), token_ids(rng)
    plain = collected(model, masks_of("llama"), as_feed(ids))
    for layer in model.model.layers:
        forward = layer.forward
        layer.forward = lambda *args, forward=forward, **named: checkpoint(forward, *args, use_reentrant=False, **named)
    again = collected(model, masks_of("llama"), as_feed(ids))
    for key, sums in plain.sums.items():
        assert np.array_equal(again.sums[key].array, sums.array)


def test_what_changes_in_place_behind_a_mask_does_not_matter(rng):
    model, ids = build("llama").eval(), token_ids(rng)
    masks = [Mask("m", "model.layers.1.mlp.up_proj", "output", 48)]
    plain = collected(model, masks, as_feed(ids))
    handle = model.model.layers[1].mlp.up_proj.register_forward_hook(lambda _module, _args, output: output.mul_(1))
    assert np.array_equal(collected(model, masks, as_feed(ids)).sums["m"].array, plain.sums["m"].array)
    handle.remove()


def test_bfloat16_is_summed_in_float32(rng):
    ones = torch.ones(3, 70_001, 2, dtype=torch.bfloat16)
    assert sum_products(ones, ones).tolist() == [210_003, 210_003]
    model, ids = build("llama").eval().bfloat16(), token_ids(rng)
    masks = masks_of("llama")
    rough = collected(model, masks, as_feed(ids))
    fine = collected(model.float(), masks, as_feed(ids))
    assert rough.loss == pytest.approx(fine.loss, rel=0.01)
    for mask in masks:
        a, b = rough.sums[mask.key].array, fine.sums[mask.key].array
        assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(b)


class BoomError(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_left_as_it_was(rng, fails):
    model = build("llama").train()
    model.model.norm.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    def disturbing(output, example):
        torch.rand(3), random.random(), np.random.rand()
        if fails and example.number:
            raise BoomError
        return output.logits.float().square().mean()

    if fails:
        with pytest.raises(BoomError):
            collected(model, masks_of("llama"), as_feed(token_ids(rng)), disturbing)
    else:
        collected(model, masks_of("llama"), as_feed(token_ids(rng)), disturbing)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()] == flags
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_what_runs_under_masks_is_the_model_bit_for_bit(rng):
    model, ids = build("bert").eval().bfloat16(), token_ids(rng)
    seen = []

    def keep(output, _example):
        seen.append(output.logits.detach().clone())
        return output.logits.float().sum()

    collected(model, masks_of("bert"), as_feed(ids), keep)
    with torch.no_grad():
        for logits, one in zip(seen, ids, strict=True):
            assert torch.equal(logits, model(input_ids=torch.from_numpy(one)).logits)


def refused(reason, *args, **named):
    with pytest.raises(ShimError) as caught:
        collected(*args, **named)
    assert caught.value.reason is reason
    return caught.value.message


DOWN = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("masks", "reason", "message"),
    [
        ([], Reason.INVALID_REQUEST, "there is no mask"),
        ([Mask("m", DOWN, "input", 0)], Reason.INVALID_REQUEST, "mask m has 0 units"),
        ([Mask("m", DOWN, "input", 48)] * 2, Reason.INVALID_REQUEST, "two masks have the key 'm'"),
        ([Mask("m", "model.layers.1.mlp.down_prj", "input", 1)], Reason.UNKNOWN_MODULE, "mask m: the model has no"),
        (
            [Mask("m", DOWN, "input", 7)],
            Reason.BAD_TENSOR,
            f"mask m: the input of {DOWN} is [2, 9, 48], whose last axis is no multiple of the mask's 7 units",
        ),
        (
            [Mask("m", "model.embed_tokens", "input", 1)],
            Reason.BAD_TENSOR,
            "the input of model.embed_tokens is int64 [2, 9]; a mask needs a floating-point tensor",
        ),
        (
            [Mask("m", "model.layers.1.self_attn", "input", 1)],
            Reason.BAD_TENSOR,
            "the input of model.layers.1.self_attn is nothing by position",
        ),
        ([Mask("m", "model", "output", 1)], Reason.BAD_TENSOR, "is BaseModelOutputWithPast"),
    ],
)
def test_masks_that_do_not_fit(rng, masks, reason, message):
    model = build("llama").eval()
    assert message in refused(reason, model, masks, as_feed(token_ids(rng)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_tuple_is_masked_by_its_first_element(rng):
    model, ids = build("llama").eval(), token_ids(rng)
    masks = [
        Mask("whole", "model.layers.1.self_attn", "output", 32),
        Mask("first", "model.layers.1.self_attn.o_proj", "output", 32),
    ]
    sums = collected(model, masks, as_feed(ids)).sums
    assert np.array_equal(sums["whole"].array, sums["first"].array)


def test_a_module_that_never_runs(rng):
    model = build("bert").eval()
    model.add_module("spare", torch.nn.Linear(2, 2))
    spare = Mask("spare", "spare", "output", 2)
    message = "mask spare: the model never runs its module spare"
    feed = as_feed(token_ids(rng))
    assert message in refused(Reason.UNKNOWN_MODULE, model, [spare], feed)
    assert message in refused(Reason.UNKNOWN_MODULE, model, [*masks_of("bert"), spare], feed)


def test_a_mask_that_the_loss_does_not_depend_on_is_worth_nothing(rng):
    model = build("bert-headless").eval()
    masks = [Mask("pooler", "pooler.dense", "output", 32), *masks_of("bert-headless")]

    def loss(output, _example):
        return output.last_hidden_state.square().mean()

    sums = collected(model, masks, as_feed(token_ids(rng)), loss).sums
    assert not sums["pooler"].array.any()
    assert sums[masks[1].key].array.all()
    message = refused(
        Reason.BAD_DATA, model, masks[:1], as_feed(token_ids(rng)), lambda o, _: o.last_hidden_state.detach().sum()
    )
    assert "the loss of batch 0 depends on no mask" in message


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, e: o.logits.mean() * (float("nan") if e.number == 1 else 1), "the loss of batch 1 is nan"),
        (lambda o, e: o.logits.mean() / (0 if e.number == 2 else 1), "the loss of batch 2 is "),
        (
            # 0 where its slope has none.
            lambda o, e: (o.logits * 0).sum().sqrt() if e.number == 1 else o.logits.mean(),
            "the gradient of batch 1 at the input of model.layers.0.self_attn.o_proj is not finite",
        ),
        (lambda o, e: backward(o.logits.mean()), "backward from the loss of batch 0 failed: "),
    ],
)
def test_what_is_not_finite_or_cannot_go_backward_names_the_batch(rng, loss, message):
    assert message in refused(Reason.BAD_DATA, build("llama").eval(), masks_of("llama"), as_feed(token_ids(rng)), loss)


def backward(loss):
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("name", "loss", "labels", "message"),
    [
        ("bert", "masked_lm", None, "batch 0 has no labels"),
        ("bert", "masked_lm", np.full((2, 9), -100), "batch 0 has nothing to predict"),
        ("bert", "masked_lm", np.full((2, 9), VOCAB), f"batch 0 has the label {VOCAB}; the model has {VOCAB} classes"),
        (
            "bert",
            "masked_lm",
            np.full((2, 8), 1),
            "batch 0 has targets int64 [2, 8] where the model's logits are [2, 9",
        ),
        ("bert", "masked_lm", np.ones((2, 9), np.float32), "batch 0 has targets float32 [2, 9]"),
        ("bert-classes", "sequence_classification", np.array([0, 3]), "batch 0 has the label 3"),
        ("bert-classes", "sequence_classification", None, "batch 0 has no labels"),
        (
            "bert-headless",
            "mse",
            np.ones((2, 9), np.float32),
            "batch 0 has labels [2, 9] where the output is [2, 9, 32]",
        ),
        ("llama", "causal_lm", np.full((2, 9), -1), "batch 0 has the label -1"),
    ],
)
def test_labels_that_are_missing_or_do_not_fit(rng, name, loss, labels, message):
    ids = token_ids(rng, batches=1)
    feed = as_feed(ids) if labels is None else labelled(ids, [labels])
    assert message in refused(Reason.BAD_DATA, build(name).eval(), masks_of(name), feed, loss)


@pytest.mark.parametrize(("name", "loss"), [("bert-headless", "causal_lm"), ("bert-classes", "masked_lm")])
def test_a_loss_that_the_model_has_no_head_for(rng, name, loss):
    message = refused(Reason.INVALID_REQUEST, build(name).eval(), masks_of(name), as_feed(token_ids(rng)), loss)
    assert "this takes logits with 3 axes, and the model gives" in message


def test_sequences_of_one_token_and_no_batch_at_all(rng):
    model = build("llama").eval()
    message = refused(Reason.BAD_DATA, model, masks_of("llama"), as_feed(token_ids(rng, length=1)))
    assert "its sequences have one token" in message
    assert "before its first batch" in refused(Reason.BAD_DATA, model, masks_of("llama"), [])


def test_sequences_that_are_longer_than_the_positions_there_are(rng):
    message = refused(Reason.BAD_DATA, build("bert").eval(), masks_of("bert"), as_feed(token_ids(rng, length=65)))
    assert "cannot run a batch of input_ids [2, 65]" in message


def test_float16_is_refused(rng):
    model = build("llama").eval().half()
    assert "float16" in refused(Reason.INVALID_REQUEST, model, masks_of("llama"), as_feed(token_ids(rng)))
