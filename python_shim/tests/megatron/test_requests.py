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


LAYOUTS = {"pp": {"pp": 2}, "tp": {"tp": 2, "config": {"sequence_parallel": True}}}
OUTGROWN = {"scenario": "outgrow_positions", "positions": 16}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("requests")
    jobs = {name: (2, [{"id": name, "parent": "llama-gqa", **layout}]) for name, layout in LAYOUTS.items()}
    jobs["outgrown"] = (1, [{"id": "outgrown", "parent": "llama-gqa", **OUTGROWN}])
    exits, log = run_jobs("ask_in_vain", folder, jobs)
    assert exits == {"pp": [0, 0], "tp": [0, 0], "outgrown": [0]}, log
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_cannot_be_done_is_said(layout, asked):
    errors = read(asked, layout)
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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_go_on_as_if_nothing_had_been(layout, asked):
    golden = load_file(GOLDEN / "llama-gqa" / "scores.safetensors")
    found = as_golden(dict(np.load(asked / f"{layout}.npz")))
    for key, value in golden.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)
    for rank in range(2):
        assert json.loads((asked / f"{layout}.{rank}.hooks").read_text()) == []


def test_sequences_that_outgrow_learned_positions_are_refused(asked):
    told = read(asked, "outgrown")
    assert told["reason"] == "BAD_DATA"
    assert told["message"] == "batch 0 has sequences of 17 tokens, and the model has learned 16 positions"
    assert told["tokens"] > 0
