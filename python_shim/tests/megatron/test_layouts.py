"""Accumulators are the golden ones whatever the layout that measured them."""

from pathlib import Path

import numpy as np
import pytest
from launch import read, run_jobs, scaled
from safetensors.numpy import load_file

GOLDEN = Path(__file__).resolve().parents[3] / "test" / "golden"
SP = {"sequence_parallel": True}
LLAMA, NEMOTRON, MIXTRAL = "llama-gqa", "nemotron-mha", "mixtral-small"


def case(name, parent, **layout):
    return name, {"id": name, "parent": parent, **layout}


ONE = dict([case("llama", LLAMA), case("nemotron", NEMOTRON), case("mixtral", MIXTRAL)])
EVERY_TWO = dict(
    [
        case("tp2", LLAMA, tp=2),
        case("tp2-sp", LLAMA, tp=2, config=SP),
        case("tp2-sp-bias", NEMOTRON, tp=2, config=SP),
        case("pp2", LLAMA, pp=2),
        case("pp2-uneven", LLAMA, pp=2, config={"num_layers_in_first_pipeline_stage": 1}),
        case("pp2-virtual", LLAMA, pp=2, vpp=2),
        case("dp2", LLAMA),
        case("dp2-odd", NEMOTRON),
        case("cp2", LLAMA, cp=2),
        case("recomputed", LLAMA, tp=2, config={"recompute_granularity": "selective", "recompute_modules": ["mlp"]}),
        case("fused", LLAMA, tp=2, config=SP, spec={"fused_norms": True}),
        case("fused-bias", NEMOTRON, tp=2, spec={"fused_norms": True}),
        case("experts-dp2", MIXTRAL),
        case("experts-ep2", MIXTRAL, ep=2),
        case("experts-tp2", MIXTRAL, tp=2),
        case("experts-tp2-ep2", MIXTRAL, tp=2, ep=2, etp=1, config=SP),
        case("experts-tp2-etp2", MIXTRAL, tp=2, etp=2, config=SP),
        case("experts-cp2", MIXTRAL, cp=2),
        case("experts-cp2-ep2", MIXTRAL, cp=2, ep=2),
        case("experts-grouped", MIXTRAL, ep=2, spec={"grouped_experts": True, "fused_norms": True}),
    ]
)
TWO = scaled(
    EVERY_TWO, ["tp2", "tp2-sp", "tp2-sp-bias", "pp2", "dp2", "cp2", "fused", "experts-ep2", "experts-tp2-ep2"]
)
EVERY_FOUR = dict(
    [
        case("tp2-pp2", LLAMA, tp=2, pp=2),
        case("tp2-pp2-sp", LLAMA, tp=2, pp=2, config=SP),
        case("tp2-dp2", LLAMA, tp=2),
        case("pp2-dp2", LLAMA, pp=2, vpp=2),
        case("tp2-cp2", LLAMA, tp=2, cp=2, config=SP),
        case("experts-tp4", MIXTRAL, tp=4, config=SP),
        case("experts-ep4", MIXTRAL, ep=4),
        case("experts-ep2-dp4", MIXTRAL, ep=2),
        case("experts-pp2-ep2", MIXTRAL, pp=2, ep=2),
        case("experts-cp4-ep2", MIXTRAL, cp=4, ep=2),
        case("experts-tp2-cp2-ep2", MIXTRAL, tp=2, cp=2, ep=2, etp=1, config=SP),
    ]
)
FOUR = scaled(EVERY_FOUR, ["tp2-pp2", "tp2-pp2-sp", "pp2-dp2", "experts-tp2-cp2-ep2"])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    exits, log = run_jobs("measure", folder, {"one": (1, list(ONE.values())), "four": (4, list(FOUR.values()))})
    assert exits == {"one": [0], "four": [0] * 4}, log
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_jobs("measure", folder, {"two": (2, list(TWO.values()))}, under_torchrun=True)
    return folder


def check(folder, one_case, alone):
    name, parent = one_case["id"], one_case["parent"]
    golden = load_file(GOLDEN / parent / "scores.safetensors")
    sums = dict(np.load(folder / f"{name}.npz"))
    found = as_golden(sums)
    assert sorted(found) == sorted(golden)
    for key, value in golden.items():
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)
    for key, value in np.load(alone / f"{ALONE[parent]}.npz").items():
        np.testing.assert_allclose(sums[key], value, rtol=1e-5, err_msg=key)
    told, told_alone = read(folder, name), read(alone, ALONE[parent])
    assert told["loss"] == [pytest.approx(told_alone["loss"][0], rel=1e-6), told_alone["loss"][1]]
    assert {**told, "loss": 0} == {**told_alone, "loss": 0}


ALONE = {LLAMA: "llama", NEMOTRON: "nemotron", MIXTRAL: "mixtral"}


def as_golden(sums):
    """Accumulators as the golden files have them: experts apart, and layers together."""
    layers = sorted(
        (key for key in sums if key.removeprefix("decoder.layers.").isdigit()),
        key=lambda key: int(key.rpartition(".")[2]),
    )
    found = {"layer_scores": np.stack([sums[key] for key in layers])}
    for key, value in sums.items():
        if key.endswith(".local_experts"):
            found |= {f"{key}.{expert}": row for expert, row in enumerate(value)}
        elif key not in layers:
            found[key] = value
    return found


@pytest.mark.parametrize("name", [*ONE, *FOUR])
def test_one_rank_and_four(name, one):
    check(one, {**ONE, **FOUR}[name], one)


@pytest.mark.parametrize("name", TWO)
def test_two_ranks_under_torchrun(name, two, one):
    check(two, TWO[name], one)
