"""What cannot be done is said, and leaves the job and the ranks as they were."""

import json

import numpy as np
import pytest
from launch import read, run_jobs
from safetensors.numpy import load_file
from test_layouts import GOLDEN, as_golden

EXPECTED = {
    "nowhere": ("UNKNOWN_MODULE", "hook k: no rank has a module 'decoder.layers.3.mlp.linear_fc3'"),
    "twice": ("INVALID_REQUEST", "two hooks have the key 'decoder.layers.0.self_attention'"),
    "no experts": ("INVALID_REQUEST", "decoder.layers.3.mlp is MLP, within which routed reductions cannot be taken"),
    "parts of heads": ("BAD_TENSOR", "the input of decoder.layers.3.self_attention.core_attention is [32, 2, 8, 8]"),
    "other channels": ("BAD_TENSOR", "hook k: decoder.layers.3.mlp.linear_fc2 takes [32, 2, "),
    "no numbers": ("BAD_TENSOR", "hook k: decoder.signs cannot be measured: "),
    "never runs": ("UNKNOWN_MODULE", "hook n: the model never runs its module decoder.idle"),
    "no batch": ("BAD_DATA", "the feed ended before its first batch"),
    "no such token": ("BAD_DATA", "in batch 1 is outside of the vocabulary of 256"),
    "odd length": ("BAD_DATA", "batch 0 has sequences of 31 tokens, which the ranks of this job cannot share out"),
    "a wish": ("INVALID_REQUEST", "batch 0 asks for logits"),
    "more than ids": ("BAD_DATA", "batch 0 holds input_ids, mask where a tensor input_ids alone belongs"),
    "cancelled": ("CANCELLED", "the operation was cancelled"),
}


@pytest.fixture(scope="module", params=["pp", "tp"])
def outcome(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("requests")
    layout = {"pp": {"pp": 2}, "tp": {"tp": 2, "config": {"sequence_parallel": True}}}[request.param]
    exits, log = run_jobs("ask_in_vain", folder, {"ask": (2, [{"id": "ask", "parent": "llama-gqa", **layout}])})
    assert exits["ask"] == [0, 0], log
    return request.param, folder


def test_what_cannot_be_done_is_said(outcome):
    layout, folder = outcome
    errors = read(folder, "ask")
    # Heads are shared out, and sequences only where they are too.
    expected = {**EXPECTED}
    if layout == "pp":
        del expected["odd length"]
    else:
        expected["other channels"] = ("BAD_TENSOR", "linear_fc2 gives another part of the tokens than it takes")
        expected["parts of heads"] = ("BAD_TENSOR", "core_attention is [32, 2, 4, 8]")
    for name, (reason, message) in expected.items():
        assert errors[name]["reason"] == reason, name
        assert message in errors[name]["message"]
    assert "decoder.layers.3.mlp.linear_fc1" in errors["nowhere"]["hint"]


def test_ranks_go_on_as_if_nothing_had_been(outcome):
    _layout, folder = outcome
    golden = load_file(GOLDEN / "llama-gqa" / "scores.safetensors")
    found = as_golden(dict(np.load(folder / "ask.npz")))
    for key, value in golden.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)
    for rank in range(2):
        assert json.loads((folder / f"ask.{rank}.hooks").read_text()) == []


def test_sequences_that_outgrow_learned_positions_are_refused(tmp_path):
    case = {"id": "one", "parent": "llama-gqa", "positions": 16}
    exits, log = run_jobs("outgrow_positions", tmp_path, {"one": (1, [case])})
    assert exits["one"] == [0], log
    told = read(tmp_path, "one")
    assert told["reason"] == "BAD_DATA"
    assert told["message"] == "batch 0 has sequences of 17 tokens, and the model has learned 16 positions"
    assert told["tokens"] > 0
