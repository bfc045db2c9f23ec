"""A child saved from live weights is the one that is cut from the parent's file, whatever the layout of the job."""

import hashlib
import zlib

import pytest
from golden import GOLDEN
from launch import read, run_jobs, scaled
from sliced_children import PARENT, child_of

from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.slicing.run import slice_shards

SP = {"sequence_parallel": True}
LLAMA, NEMOTRON, MIXTRAL = "llama-gqa", "nemotron-mha", "mixtral-small"


def case(name, parent, **layout):
    return name, {"id": name, "parent": parent, **layout}


ONE = dict([case("one", LLAMA), case("one-experts", MIXTRAL)])
EVERY_TWO = dict(
    [
        case("tp2", LLAMA, tp=2, config=SP),
        case("pp2-virtual", LLAMA, pp=2, vpp=2),
        case("pp2-tied", LLAMA, pp=2, tied=True),
        case(
            "pp2-uneven",
            NEMOTRON,
            pp=2,
            config={"num_layers_in_first_pipeline_stage": 2, "num_layers_in_last_pipeline_stage": 1},
        ),
        case("dp2", NEMOTRON),
        case("cp2", LLAMA, cp=2),
        case("fused", NEMOTRON, tp=2, spec={"fused_norms": True}),
        case("ep2", MIXTRAL, ep=2),
        case("ep2-grouped", MIXTRAL, ep=2, spec={"grouped_experts": True, "fused_norms": True}),
    ]
)
TWO = scaled(EVERY_TWO, ["tp2", "pp2-tied", "pp2-uneven", "fused", "ep2-grouped"])
EVERY_FOUR = dict(
    [
        case("tp2-pp2", LLAMA, tp=2, pp=2, config=SP),
        case("tp4", LLAMA, tp=4, config=SP),
        case("tp2-dp2", LLAMA, tp=2),
        case("bias-tp2-dp2", NEMOTRON, tp=2, config=SP),
        case("experts-tp2-pp2", MIXTRAL, tp=2, pp=2, config=SP),
        case("experts-pp2-ep2", MIXTRAL, pp=2, ep=2),
        case("experts-tp2-ep2-etp1", MIXTRAL, tp=2, ep=2, etp=1, config=SP),
        case("experts-tp4-etp2-ep2", MIXTRAL, tp=4, etp=2, ep=2, config=SP),
        case("experts-ep2-dp4", MIXTRAL, ep=2),
    ]
)
FOUR = scaled(EVERY_FOUR, ["tp2-pp2", "experts-tp2-ep2-etp1", "experts-pp2-ep2"])
CASES = {**ONE, **TWO, **FOUR}
LIMITED = {"vain": "", "full": "files", "crowded": "memory"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    vain = {"scenario": "save_in_vain", "parent": LLAMA, "tp": 2, "config": SP}
    jobs = {
        "one": (1, list(ONE.values())),
        "two": (2, list(TWO.values())),
        "four": (4, list(FOUR.values())),
        "vain": (2, [{"id": name, "limited": limited, **vain} for name, limited in LIMITED.items()]),
    }
    exits, log = run_jobs("save", folder, jobs)
    assert exits == {"one": [0], "two": [0] * 2, "four": [0] * 4, "vain": [0] * 2}, log
    return folder


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Cuts the child of a case from the parent's file; gives its folder."""
    folder, cut = tmp_path_factory.mktemp("cut"), {}

    def cut_child(parent, apart=False, tied=False):
        if (parent, apart, tied) not in cut:
            cut[parent, apart, tied] = target = folder / str(len(cut))
            shards, sets = child_of(GOLDEN / parent / PARENT, apart, tied)
            slice_shards(SliceJob(GOLDEN / parent, target, shards, sets, flush=False), lambda *_: None)
        return cut[parent, apart, tied] / "child"

    return cut_child


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_child_of_the_file(name, apart, saved, cut):
    told = read(saved, name)[str(apart)]
    expected = sorted(cut(CASES[name]["parent"], apart, CASES[name].get("tied", False)).iterdir())
    assert [file for file, *_ in told] == [path.name for path in expected]
    for (file, size, crc32, sha256), path in zip(told, expected, strict=True):
        data = (saved / f"{name}.{apart}" / "child" / file).read_bytes()
        assert data == path.read_bytes()
        assert (size, crc32, sha256) == (len(data), zlib.crc32(data), hashlib.sha256(data).hexdigest())


EXPECTED = {
    "nowhere": ("BAD_TENSOR", "no rank holds a tensor decoder.layers.3.mlp.linear_fc3.weight"),
    "other shape": ("BAD_TENSOR", "is F32 [64, 128] where the request says F32 [64, 192]"),
    "other dtype": ("BAD_TENSOR", "is F32 [64, 128] where the request says BF16 [64, 128]"),
    "in blocks": ("INVALID_REQUEST", "linear_fc2.weight is to be cut in blocks"),
    "outside": ("BAD_TENSOR", "index set 'hidden' keeps position 64"),
    "cancelled": ("CANCELLED", "the operation was cancelled"),
    "unseen": ("PATH_NOT_FOUND", "child is not the folder that the job's first rank has made"),
    "no parent folder": ("PATH_NOT_FOUND", "nowhere"),
}


def test_what_cannot_be_saved_is_said_and_leaves_nothing(saved):
    errors = read(saved, "vain")
    for name, (reason, message) in EXPECTED.items():
        assert errors[name]["reason"] == reason, name
        assert message in errors[name]["message"]
        assert errors[name]["left"] == [], name
    assert "decoder.layers.3.mlp.linear_fc2.weight" in errors["nowhere"]["hint"]


@pytest.mark.parametrize(
    ("name", "reason", "message"), [("full", "STORAGE_FULL", "rank 1: "), ("crowded", "GPU_OOM", "rank 1 has no ")]
)
def test_a_rank_without_room_is_named(name, reason, message, saved):
    (error,) = read(saved, name).values()
    assert error["reason"] == reason
    assert error["message"].startswith(message)
    assert error["left"] == []


def test_ranks_save_as_if_nothing_had_been(saved, cut):
    expected = {path.name: path.read_bytes() for path in cut(LLAMA).iterdir()}
    assert {path.name: path.read_bytes() for path in (saved / "vain.0" / "good" / "child").iterdir()} == expected
