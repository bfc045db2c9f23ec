"""Configs that name what is to be fetched are refused, at any depth and by whoever builds of them."""

import json

import pytest
import torch
import transformers as tf
from tiny import build, save_model

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.checkpoint import load_model
from prunebridge_shim.models.fetching import check_fetches_nothing
from prunebridge_shim.networks.opening import build_of_config

FETCHING = [
    {"attn_implementation": "somebody/kernel"},
    {"text_config": {"_attn_implementation": {"": "sdpa", "vision_config": "somebody/kernel@main:f"}}},
    {"experts_implementation": "somebody/experts"},
    {"vision": [{"backbone": "resnet50"}]},
    {"use_timm_backbone": True},
]


@pytest.mark.parametrize("fields", FETCHING)
def test_what_would_be_fetched_is_refused(tmp_path, fields):
    save_model("llama", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(ShimError, match="may fetch") as caught:
        load_model(str(tmp_path), torch.device("cpu"), "auto")
    assert caught.value.reason is Reason.BAD_CHECKPOINT
    with pytest.raises(ShimError, match="may fetch"):
        build_of_config(tf.LlamaForCausalLM, fields, Reason.INVALID_REQUEST)


def test_what_transformers_has_is_not():
    config = {**build("llama").config.to_dict(), "attn_implementation": "sdpa", "backbone": None}
    check_fetches_nothing(config, "the config", Reason.BAD_CHECKPOINT)
