"""A job that is measured and saved in the middle goes on as one that was left alone, bit for bit."""

import pytest
from golden import GOLDEN
from launch import read, run_jobs
from sliced_children import PARENT, as_checkpointed, child_of

from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.slicing.run import slice_shards

SP = {"sequence_parallel": True}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
RECOMPUTED = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
BALANCED = {"moe_router_load_balancing_type": "aux_loss", "moe_aux_loss_coeff": 0.01}
BIASED = {"moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True}
OVERLAP = {
    "wrapping": {"overlap_param_gather": True, "overlap_grad_reduce": True},
    "optimizer": {"overlap_param_gather": True},
}
JOBS = {
    "plain": {"parent": "llama-gqa"},
    "dropout": {"parent": "llama-gqa", "config": DROPOUT},
    "overlap": {"parent": "llama-gqa", "config": DROPOUT, **OVERLAP},
    "recomputed": {"parent": "llama-gqa", "tp": 2, "config": {**DROPOUT, **RECOMPUTED, "sequence_parallel": True}},
    "virtual": {"parent": "llama-gqa", "pp": 2, "vpp": 2, "config": DROPOUT},
    "experts": {"parent": "mixtral-small", "ep": 2, "config": {**DROPOUT, **BALANCED, **BIASED}},
}
UNEVEN = {"num_layers_in_first_pipeline_stage": 2, "num_layers_in_last_pipeline_stage": 1}
CHECKPOINTED = {
    "tp2-pp2": {"parent": "llama-gqa", "tp": 2, "pp": 2, "config": SP},
    "tp2-pp2-bias": {"parent": "nemotron-mha", "tp": 2, "pp": 2, "config": {**SP, **UNEVEN}},
    "pp2-ep2": {"parent": "mixtral-small", "pp": 2, "ep": 2},
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    jobs = {name: (2, [{"id": name, **case}]) for name, case in JOBS.items()}
    return (folder, *run_jobs("train", folder, jobs))


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    """Jobs that are saved by Megatron-Core too, at the same step."""
    folder = tmp_path_factory.mktemp("checkpointed")
    cases = [{"id": name, **case, "checkpointed": True} for name, case in CHECKPOINTED.items()]
    return (folder, *run_jobs("train", folder, {"four": (4, cases)}))


@pytest.mark.parametrize("name", JOBS)
def test_training_is_left_as_it_was(name, outcome):
    folder, exits, log = outcome
    assert exits[name] == [0, 0], log
    for rank in range(2):
        alone, measured = (read(folder, f"{name}.{rank}.{was_measured}") for was_measured in (False, True))
        assert measured["losses"] == alone["losses"]
        assert measured["digest"] == alone["digest"]
        assert measured["scores"] is not None or rank > 0


def test_parameters_that_are_still_on_their_way_are_waited_for(outcome):
    folder, _exits, _log = outcome
    late, there = (read(folder, f"{name}.0.True")["scores"] for name in ("overlap", "dropout"))
    assert late == there
    late, there = (sorted((folder / name / "child").iterdir()) for name in ("overlap", "dropout"))
    assert len(late) == 2
    assert [path.read_bytes() for path in late] == [path.read_bytes() for path in there]


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_the_child_is_that_of_the_checkpoint_of_the_job(name, checkpointed, tmp_path):
    folder, exits, log = checkpointed
    assert exits == {"four": [0] * 4}, log
    shards, sets = child_of(GOLDEN / CHECKPOINTED[name]["parent"] / PARENT)
    job = SliceJob(folder / f"{name}.checkpoint", tmp_path / "cut", as_checkpointed(shards), sets, flush=False)
    slice_shards(job, lambda *_: None)
    cut, saved = (sorted((path / "child").iterdir()) for path in (tmp_path / "cut", folder / name))
    assert len(cut) == 2
    assert [path.read_bytes() for path in cut] == [path.read_bytes() for path in saved]
