"""A child saved from live weights is the one that is cut from the parent's file, whatever the layout of the job."""

import hashlib
import zlib

import pytest
from children import GOLDEN, PARENT, child_of
from launch import read, run_jobs

from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.slicing.run import slice_shards

SP = {"sequence_parallel": True}
LLAMA, NEMOTRON, MIXTRAL = "llama-gqa", "nemotron-mha", "mixtral-small"


def case(name, parent, **layout):
    return name, {"id": name, "parent": parent, **layout}


ONE = dict([case("one", LLAMA), case("one-experts", MIXTRAL)])
TWO = dict(
    [
        case("tp2", LLAMA, tp=2, config=SP),
        case("pp2-virtual", LLAMA, pp=2, vpp=2),
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
FOUR = dict(
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
CASES = {**ONE, **TWO, **FOUR}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    jobs = {"one": (1, list(ONE.values())), "two": (2, list(TWO.values())), "four": (4, list(FOUR.values()))}
    exits, log = run_jobs("save", folder, jobs)
    assert exits == {"one": [0], "two": [0] * 2, "four": [0] * 4}, log
    return folder


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Children that are cut from the parents' files, by parent and layout."""
    folder = tmp_path_factory.mktemp("cut")
    for parent in (LLAMA, NEMOTRON, MIXTRAL):
        for apart in (False, True):
            shards, sets = child_of(GOLDEN / parent / PARENT, apart)
            slice_shards(
                SliceJob(GOLDEN / parent, folder / f"{parent}.{apart}", shards, sets, flush=False), lambda *_: None
            )
    return folder


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_child_of_the_file(name, apart, saved, cut):
    told = read(saved, name)[str(apart)]
    expected = sorted((cut / f"{CASES[name]['parent']}.{apart}" / "child").iterdir())
    assert [file for file, *_ in told] == [path.name for path in expected]
    for (file, size, crc32, sha256), path in zip(told, expected, strict=True):
        data = (saved / f"{name}.{apart}" / "child" / file).read_bytes()
        assert data == path.read_bytes()
        assert (size, crc32, sha256) == (len(data), zlib.crc32(data), hashlib.sha256(data).hexdigest())
