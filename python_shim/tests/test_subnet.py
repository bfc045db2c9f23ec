"""A model that is cut open gives what the sliced checkpoint gives."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from children import random_slices, smaller_config
from parts import cut_of
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import as_feed, logits_of, no_tick, token_ids

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.checkpoint import load_model
from prunebridge_shim.models.store import count_parameters
from prunebridge_shim.slicing.request import OutputShard, SliceJob, TensorSlice
from prunebridge_shim.slicing.run import slice_shards
from prunebridge_shim.subnet.cut import cut_model
from prunebridge_shim.subnet.prepare import prepare_child

HIDDEN, FFN, LAYERS = np.array([0, 3, 5, 8, 9, 14, 20, 31]), np.arange(1, 48, 3), [0, 2]
SETS = {"h": HIDDEN, "f": FFN}
CPU = torch.device("cpu")


def axes_of(name, shape):
    """Hidden and FFN axes by their place in a name; heads stay whole."""
    if "mlp" in name:
        return ("h", "f") if "down" in name else ("f", "h")
    if "embed" in name or "lm_head" in name:
        return ("", "h")
    if "o_proj" in name:
        return ("h", "")
    if "_proj" in name:
        return ("", "h") if len(shape) == 2 else ("",)
    return ("h",)


def slices_of(folder):
    slices = []
    with safe_open(folder / "model.safetensors", "numpy") as file:
        for name in file.keys():  # noqa: SIM118 no mapping
            view = file.get_slice(name)
            parts = name.split(".")
            if parts[1] == "layers":
                if int(parts[2]) not in LAYERS:
                    continue
                parts[2] = str(LAYERS.index(int(parts[2])))
            shape = tuple(view.get_shape())
            slices.append(
                cut_of(".".join(parts), "model.safetensors", name, view.get_dtype(), shape, axes_of(name, shape))
            )
    return slices


def config_of(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "hidden_size": len(HIDDEN),
        "intermediate_size": len(FFN),
        "num_hidden_layers": len(LAYERS),
        "head_dim": 8,
    }
    config.pop("layer_types", None)
    return json.dumps(config)


def prepare(model, folder, slices=None, config=None, sets=SETS):
    return prepare_child(model, config or config_of(folder), slices or slices_of(folder), sets)


def cut_on_storage(folder, job_dir, slices, sets, config):
    """Cuts a checkpoint's only shard; gives the child's folder."""
    shard = OutputShard("model.safetensors", {"format": "pt"}, tuple(slices))
    slice_shards(SliceJob(folder, job_dir, [shard], sets), no_tick)
    (job_dir / "child" / "config.json").write_text(config)
    return job_dir / "child"


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "nemotron"])
def test_it_is_the_model_that_slicing_on_storage_gives(checkpoints, tmp_path, rng, name):
    folder = checkpoints(name)
    model = load_model(str(folder), CPU, "auto")
    child = cut_model(prepare(model, folder))
    assert count_parameters(model) == 0
    assert not child.training
    assert not any(parameter.requires_grad for parameter in child.parameters())
    assert not any(tensor.is_meta for tensor in [*child.parameters(), *child.buffers()])

    stored_in = cut_on_storage(folder, tmp_path / "job", slices_of(folder), SETS, config_of(folder))
    stored = load_model(str(stored_in), CPU, "auto")
    assert child.dtype is stored.dtype
    assert count_parameters(child) == count_parameters(stored)
    feed = as_feed(token_ids(rng))
    ours, theirs = logits_of(child, feed), logits_of(stored, feed)
    assert all(np.array_equal(ours[key].array, theirs[key].array) for key in theirs)
    if name == "llama-tied":
        assert child.lm_head.weight is child.model.embed_tokens.weight


def is_the_same(child, stored, rng):
    ours, theirs = (dict([*one.named_parameters(), *one.named_buffers()]) for one in (child, stored))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    feed = as_feed(token_ids(rng))
    ours, theirs = logits_of(child, feed), logits_of(stored, feed)
    assert all(np.array_equal(ours[key].array, theirs[key].array) for key in theirs)


@pytest.mark.parametrize("name", ["gemma3", "gpt_oss"])
def test_blocks_and_buffers_are_as_slicing_and_loading_make_them(checkpoints, tmp_path, rng, name):
    folder = checkpoints(name)
    model = load_model(str(folder), CPU, "auto")
    config = smaller_config(model)
    slices, sets = random_slices(model, config, rng)
    stored = [tensor for tensor in slices if not (name == "gemma3" and tensor.name == "lm_head.weight")]
    child = cut_on_storage(folder, tmp_path / "job", stored, sets, config)
    is_the_same(cut_model(prepare_child(model, config, slices, sets)), load_model(str(child), CPU, "auto"), rng)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "nemotron_h"])
def test_a_child_loads_as_it_was_saved(checkpoints, tmp_path, rng, name):
    model = load_model(str(checkpoints(name)), CPU, "auto")
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    config = smaller_config(model)
    slices, sets = random_slices(model, config, rng)
    child = cut_model(prepare_child(model, config, slices, sets))
    child.save_pretrained(tmp_path)
    is_the_same(child, load_model(str(tmp_path), CPU, "auto"), rng)
    for key, buffer in child.named_buffers():
        kept = sets.get(f"{key}.0")
        assert torch.equal(buffer, buffers[key] if kept is None else buffers[key][kept])
    assert (name == "nemotron_h") == any("e_score_correction_bias" in key for key in buffers)


def changed(slices, index, **fields):
    name = fields.pop("name", slices[index].name)
    slices[index] = TensorSlice(name, (replace(slices[index].only_part, **fields),))
    return slices


@pytest.mark.parametrize(
    ("spoil", "reason", "says"),
    [
        (lambda s: s[1:], Reason.INVALID_REQUEST, "1 tensors of the child have no slice, lm_head.weight"),
        (lambda s: changed(s, 0, name="no.such"), Reason.INVALID_REQUEST, "has no parameter or stored buffer no.such"),
        (
            lambda s: changed(s, 0, source_name="no.such"),
            Reason.BAD_TENSOR,
            "the open model has no parameter or stored buffer no.such",
        ),
        (lambda s: changed(s, 0, shape=(50, 31)), Reason.BAD_TENSOR, r"where the request says \[50, 31\]"),
        (lambda s: changed(s, 0, axes=("", "")), Reason.BAD_TENSOR, r"lm_head.weight is cut to \[50, 32\] where"),
        (lambda s: changed(s, 0, axes=("", "x")), Reason.INVALID_REQUEST, "'x', which was not sent"),
    ],
)
def test_slices_that_make_no_child_leave_the_model_as_it_was(checkpoints, rng, spoil, reason, says):
    folder = checkpoints("llama")
    model = load_model(str(folder), CPU, "auto")
    with pytest.raises(ShimError, match=says) as caught:
        prepare(model, folder, spoil(slices_of(folder)))
    assert caught.value.reason is reason
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in stored.items())


@pytest.mark.parametrize(
    "config", ["{", "[]", "{}", '{"model_type": "gpt2"}', '{"model_type": "llama", "hidden_size": "x"}']
)
def test_a_config_that_makes_no_model(checkpoints, config):
    folder = checkpoints("llama")
    with pytest.raises(ShimError, match="makes no model") as caught:
        prepare(load_model(str(folder), CPU, "auto"), folder, config=config)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_buffers_that_are_not_stored_stay(checkpoints):
    folder = checkpoints("llama")
    model = load_model(str(folder), CPU, "auto")
    frequencies = model.model.rotary_emb.inv_freq.clone()
    assert torch.equal(cut_model(prepare(model, folder)).model.rotary_emb.inv_freq, frequencies)


def test_a_config_that_changes_a_buffer_is_refused(checkpoints):
    folder = checkpoints("llama")
    model = load_model(str(folder), CPU, "auto")
    config = json.loads(config_of(folder)) | {"head_dim": 4, "num_attention_heads": 8, "num_key_value_heads": 4}
    with pytest.raises(ShimError, match=r"buffer model.rotary_emb.inv_freq is \[4\]"):
        prepare(model, folder, config=json.dumps(config))
