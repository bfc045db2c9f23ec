"""A view gives what the model gives that is cut in its stead, and leaves its parent as it is."""

import copy
import gc
import json
import weakref

import numpy as np
import pytest
import torch
from children import random_slices, smaller_config
from tiny import as_feed, build, logits_of, no_tick, token_ids

from prunebridge_shim.collect.experts import ROUTED
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import collect
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.loss import evaluate_loss
from prunebridge_shim.models.store import ModelStore, count_parameters
from prunebridge_shim.subnet.child import stored_tensors
from prunebridge_shim.subnet.cut import cut_model
from prunebridge_shim.subnet.prepare import prepare_child
from prunebridge_shim.subnet.view import open_view

FAMILIES = ["llama", "llama-tied", "qwen2", "gemma3", "mixtral", "qwen2_moe", "gpt_oss", "nemotron_h"]


def open_model(family):
    return build(family).eval().requires_grad_(False)


def units_of(model):
    paths = {module: path for path, module in model.named_modules()}
    layers = [paths[layer] for layer in model.base_model.layers]
    return [paths[model.get_input_embeddings()], *layers, paths[model.get_output_embeddings()]]


def prepare(model, rng, config=None):
    config = config or smaller_config(model)
    return prepare_child(model, config, *random_slices(model, config, rng))


def view_of(model, rng, config=None):
    prepared = prepare(model, rng, config)
    return open_view(prepared, units_of(prepared.child))


def materialised(view):
    return [name for name, tensor in stored_tensors(view).items() if not tensor.is_meta]


def fingerprint(model):
    return {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in stored_tensors(model).items()}


def is_as_it_was(model, before):
    now = stored_tensors(model)
    return now.keys() == before.keys() and all(
        now[name].data_ptr() == pointer and torch.equal(now[name], tensor) for name, (pointer, tensor) in before.items()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_view_is_the_model_that_cutting_gives(family, rng):
    model = open_model(family)
    before = fingerprint(model)
    prepared = prepare(model, rng)
    twin = copy.deepcopy(prepared)
    view, child = open_view(prepared, units_of(prepared.child)), cut_model(twin)
    assert count_parameters(view) == count_parameters(child) < count_parameters(model)
    feed = as_feed(token_ids(rng))
    ours, theirs = logits_of(view, feed), logits_of(child, feed)
    assert all(np.array_equal(ours[key].array, theirs[key].array) for key in theirs)
    assert np.isfinite(ours[0].array).all()
    assert evaluate_loss(view, feed, no_tick) == evaluate_loss(child, feed, no_tick)
    assert materialised(view) == []
    assert is_as_it_was(model, before)


@pytest.mark.parametrize("family", ["llama-tied", "nemotron_h"])
def test_a_view_in_bfloat16(family, rng):
    model = open_model(family).to(torch.bfloat16)
    prepared = prepare(model, rng)
    twin = copy.deepcopy(prepared)
    view, child = open_view(prepared, units_of(prepared.child)), cut_model(twin)
    assert view.dtype is view.base_model.dtype is torch.bfloat16
    feed = as_feed(token_ids(rng))
    ours, theirs = logits_of(view, feed), logits_of(child, feed)
    assert all(np.array_equal(ours[key].array, theirs[key].array) for key in theirs)


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt_oss"])
def test_a_view_measures_as_a_model_does(family, rng):
    model = open_model(family)
    prepared = prepare(model, rng)
    twin = copy.deepcopy(prepared)
    view, child = open_view(prepared, units_of(prepared.child)), cut_model(twin)
    points = [
        HookPoint("heads", "model.layers.1.self_attn.o_proj", "mean_abs_square_in"),
        HookPoint("layer", "model.layers.0", "cosine_distance"),
    ]
    if family != "llama":
        points += [HookPoint(measure, "model.layers.1.mlp.experts", measure) for measure in ROUTED]
    feed = as_feed(token_ids(rng))
    ours, theirs = (collect(one, points, feed, no_tick).sums for one in (view, child))
    assert all(np.array_equal(ours[key].array, theirs[key].array) for key in theirs)
    assert materialised(view) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_holds_no_more_than_the_largest_unit(family, rng):
    model = open_model(family)
    view = view_of(model, rng)
    sizes = {}
    for name, tensor in stored_tensors(view).items():
        unit = next((unit for unit in units_of(view) if name.startswith(f"{unit}.")), name.rpartition(".")[0])
        sizes[unit] = sizes.get(unit, 0) + tensor.nbytes
    owned = {tensor.data_ptr() for tensor in stored_tensors(model).values()}
    peak = 0

    def watch(_module, _args, _output):
        nonlocal peak
        alive = [tensor for tensor in stored_tensors(view).values() if not tensor.is_meta]
        peak = max(peak, sum(tensor.nbytes for tensor in alive if tensor.data_ptr() not in owned))

    with torch.nn.modules.module.register_module_forward_hook(watch):
        logits_of(view, as_feed(token_ids(rng)))
    assert max(sizes.values()) / 2 < peak <= max(sizes.values())


def test_what_is_not_cut_is_the_parents_own(rng):
    model = open_model("llama")
    view = view_of(model, rng, smaller_config(model, hidden_size=32, num_attention_heads=4, num_key_value_heads=2))
    seen = {}

    def look(layer, _args):
        seen.update({name: tensor.data_ptr() for name, tensor in layer.named_parameters()})

    view.model.layers[1].self_attn.register_forward_pre_hook(look)
    logits_of(view, as_feed(token_ids(rng)))
    theirs = model.model.layers[2].self_attn
    assert seen == {name: tensor.data_ptr() for name, tensor in theirs.named_parameters()}


def test_nothing_stays_after_a_failure(rng):
    model = open_model("mixtral")
    before = fingerprint(model)
    view = view_of(model, rng)

    def fail(_module, _args):
        assert "model.layers.1.mlp.experts.down_proj" in materialised(view)
        raise ZeroDivisionError

    handle = view.model.layers[1].mlp.register_forward_pre_hook(fail)
    feed = as_feed(token_ids(rng))
    with pytest.raises(ZeroDivisionError):
        logits_of(view, feed)
    assert materialised(view) == []
    handle.remove()
    assert np.isfinite(logits_of(view, feed)[0].array).all()
    assert is_as_it_was(model, before)


def test_nothing_stays_where_a_unit_cannot_be_made(rng, monkeypatch):
    view = view_of(open_model("llama"), rng)
    real, calls = torch.Tensor.index_select, []

    def out_of_memory(tensor, axis, indices):
        calls.append(axis)
        if len(calls) > 10:
            raise torch.OutOfMemoryError
        return real(tensor, axis, indices)

    monkeypatch.setattr(torch.Tensor, "index_select", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        logits_of(view, as_feed(token_ids(rng)))
    assert materialised(view) == []


def test_a_view_stands_where_its_parent_does(rng):
    model = open_model("llama")
    view = view_of(model, rng)
    assert view.device == view.base_model.device == model.device
    assert type(view).__name__ == type(model).__name__
    assert isinstance(view, type(model))


@pytest.mark.parametrize(
    ("units", "reason", "says"),
    [
        (["model.layers.9"], Reason.UNKNOWN_MODULE, "the child has no module 'model.layers.9'"),
        ([""], Reason.UNKNOWN_MODULE, "no module ''"),
        (["model.layers.1", "model.layers.1.mlp"], Reason.INVALID_REQUEST, "1.mlp lies within unit model.layers.1"),
        (["model.norm", "model.norm"], Reason.INVALID_REQUEST, "model.norm lies within unit model.norm"),
    ],
)
def test_units_that_cannot_be(rng, units, reason, says):
    with pytest.raises(ShimError, match=says) as caught:
        open_view(prepare(open_model("llama"), rng), units)
    assert caught.value.reason is reason


@pytest.fixture
def store(rng):
    """A store, the id of a model in it, and that of a view of it."""
    store = ModelStore()
    model = open_model("llama")
    model_id = store.add(model)
    return store, model_id, store.add_view(view_of(model, rng), model_id)


def refused(call, reason):
    with pytest.raises(ShimError) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value.message


def test_a_view_dies_with_its_parent_and_frees_its_memory(store):
    store, model_id, view_id = store
    weights = [weakref.ref(tensor) for tensor in stored_tensors(store.get(model_id)).values()]
    gc.disable()
    try:
        store.remove(model_id)
        assert [one for one in weights if one() is not None] == []
    finally:
        gc.enable()
    assert f"no model '{view_id}' is open" in refused(lambda: store.get(view_id), Reason.UNKNOWN_MODEL)


def test_a_view_closes_alone(store):
    store, model_id, view_id = store
    assert f"open views: {view_id}" in refused(lambda: store.get_unviewed(model_id), Reason.INVALID_REQUEST)
    store.remove(view_id)
    assert store.get_unviewed(model_id) is store.get(model_id)


def test_a_view_has_nothing_to_cut(store):
    store, model_id, view_id = store
    assert f"a view of {model_id}" in refused(lambda: store.get_parent(view_id), Reason.INVALID_REQUEST)


def test_the_config_is_the_childs(rng):
    model = open_model("qwen2_moe")
    config = json.loads(smaller_config(model))
    view = view_of(model, rng)
    assert view.config.num_experts == view.model.layers[0].mlp.experts.num_experts == config["num_experts"]
