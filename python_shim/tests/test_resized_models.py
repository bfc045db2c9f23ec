"""Models of transformers whose layers come to differ: a child is the whole model with what was cut made zero."""

import json

import numpy as np
import pytest
import torch
import transformers as tf
from parts import cut_of
from tiny import build, no_tick

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.opening import NetworkOpener
from prunebridge_shim.networks.prepare import prepare_resized
from prunebridge_shim.networks.saving import NetworkSave, save_network
from prunebridge_shim.subnet.cut import cut_model
from prunebridge_shim.subnet.view import make_view

IDS = torch.arange(14).reshape(2, 7)
SETS = {"heads": np.r_[0:4, 12:16], "pairs": np.r_[0:16], "group": np.r_[0:8], "ffn": np.arange(0, 48, 3)}


def bert():
    torch.manual_seed(6)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 48}
    config = tf.BertConfig(**sizes, num_attention_heads=4, max_position_embeddings=16, initializer_range=0.2)
    return tf.BertForMaskedLM(config).eval().requires_grad_(False)


def llama():
    return build("llama").eval().requires_grad_(False)


BERT_HEADS, BERT_FFN = "bert.encoder.layer.0.attention", "bert.encoder.layer.1"
BERT = (
    {
        **{f"{BERT_HEADS}.self.{name}.weight": ("heads", "") for name in ("query", "key", "value")},
        **{f"{BERT_HEADS}.self.{name}.bias": ("heads",) for name in ("query", "key", "value")},
        f"{BERT_HEADS}.output.dense.weight": ("", "heads"),
        f"{BERT_FFN}.intermediate.dense.weight": ("ffn", ""),
        f"{BERT_FFN}.intermediate.dense.bias": ("ffn",),
        f"{BERT_FFN}.output.dense.weight": ("", "ffn"),
    },
    {
        f"{BERT_HEADS}.self": {"num_attention_heads": 2, "all_head_size": 8},
        **{f"{BERT_HEADS}.self.{name}": {"out_features": 8} for name in ("query", "key", "value")},
        f"{BERT_HEADS}.output.dense": {"in_features": 8},
        f"{BERT_FFN}.intermediate.dense": {"out_features": 16},
        f"{BERT_FFN}.output.dense": {"in_features": 16},
    },
)
LLAMA_HEADS, LLAMA_FFN = "model.layers.0.self_attn", "model.layers.2.mlp"
LLAMA = (
    {
        f"{LLAMA_HEADS}.q_proj.weight": ("pairs", ""),
        f"{LLAMA_HEADS}.k_proj.weight": ("group", ""),
        f"{LLAMA_HEADS}.v_proj.weight": ("group", ""),
        f"{LLAMA_HEADS}.o_proj.weight": ("", "pairs"),
        f"{LLAMA_FFN}.gate_proj.weight": ("ffn", ""),
        f"{LLAMA_FFN}.up_proj.weight": ("ffn", ""),
        f"{LLAMA_FFN}.down_proj.weight": ("", "ffn"),
    },
    {
        f"{LLAMA_HEADS}.q_proj": {"out_features": 16},
        f"{LLAMA_HEADS}.k_proj": {"out_features": 8},
        f"{LLAMA_HEADS}.v_proj": {"out_features": 8},
        f"{LLAMA_HEADS}.o_proj": {"in_features": 16},
        f"{LLAMA_FFN}.gate_proj": {"out_features": 16},
        f"{LLAMA_FFN}.up_proj": {"out_features": 16},
        f"{LLAMA_FFN}.down_proj": {"in_features": 16},
    },
)
MODELS = pytest.mark.parametrize(("make", "plan"), [(bert, BERT), (llama, LLAMA)])


def slices_of(model, axes):
    return [
        cut_of(name, "", name, "F32", tuple(one.shape), axes.get(name, ("",) * one.ndim))
        for name, one in model.state_dict().items()
    ]


def zeroed(model, axes):
    """The model without what the output projections read of what was cut."""
    for name, (*_, columns) in axes.items():
        if len(axes[name]) == 2 and columns:
            weight = model.get_parameter(name)
            gone = np.setdiff1d(np.arange(weight.shape[1]), SETS[columns])
            weight.data[:, gone] = 0
    return model


def logits(model):
    return model(input_ids=IDS).logits


@MODELS
def test_a_view_is_the_model_with_what_was_cut_made_zero(make, plan):
    axes, sizes = plan
    model, before = make(), make().state_dict()
    view = make_view(prepare_resized(model, sizes, slices_of(model, axes), SETS))
    torch.testing.assert_close(logits(view), logits(zeroed(make(), axes)))
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    whole = next(name for name, one in model.named_parameters() if name not in axes)
    assert view.get_parameter(whole).data_ptr() == model.get_parameter(whole).data_ptr()
    torch.testing.assert_close(logits(model), logits(make()))


@MODELS
def test_a_cut_model_is_saved_and_opened_again(make, plan, tmp_path):
    axes, sizes = plan
    model = make()
    config, kind = model.config.to_dict(), type(model).__name__
    child = cut_model(prepare_resized(model, sizes, slices_of(model, axes), SETS))
    expected = logits(zeroed(make(), axes))
    torch.testing.assert_close(logits(child), expected)
    save_network(child, NetworkSave(tmp_path / "job"), no_tick)
    folder = tmp_path / "job/child"
    architecture = {
        "format": "prunebridge.architecture/1",
        "source": {"transformers": kind, "config": config},
        "modules": sizes,
        "tensors": {name: list(one.shape) for name, one in child.state_dict().items()},
    }
    (folder / "architecture.json").write_text(json.dumps(architecture))
    again = NetworkOpener(EntryPoints(), torch.device("cpu"), "auto").pruned(folder)
    torch.testing.assert_close(logits(again), expected)


def test_sizes_that_the_tensors_deny():
    model = bert()
    sizes = {**BERT[1], f"{BERT_FFN}.output.dense": {"in_features": 15}}
    with pytest.raises(ShimError, match=r"output\.dense\.in_features 15 makes axis 1 one of 15") as caught:
        prepare_resized(model, sizes, slices_of(model, BERT[0]), SETS)
    assert caught.value.reason is Reason.BAD_TENSOR
