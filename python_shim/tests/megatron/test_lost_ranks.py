"""A rank that is gone, or goes its own way, is known by a deadline, and no other waits for it for ever."""

import pytest
from launch import read, run_jobs

DEADLINE_S = 12.0
LLAMA = {"parent": "llama-gqa", "deadline_s": DEADLINE_S}


def lost(ranks, victim, signal, **layout):
    return ranks, {**LLAMA, "victim": victim, "signal": signal, **layout}


LOST = {
    "killed-tp": lost(2, 1, "SIGKILL", tp=2),
    "killed-pp": lost(4, 3, "SIGKILL", tp=2, pp=2),
    "stopped-tp": lost(4, 1, "SIGSTOP", tp=2, pp=2),
    "stopped-dp": lost(2, 1, "SIGSTOP"),
    "killed-saving": lost(4, 3, "SIGKILL", tp=2, pp=2, saves=True),
    "stopped-saving": lost(4, 1, "SIGSTOP", tp=2, pp=2, saves=True),
    "leader-killed": lost(3, 0, "SIGKILL"),
    "leader-stopped": lost(2, 0, "SIGSTOP", pp=2),
}
STRAY = {
    "left": (2, {**LLAMA, "tp": 2, "how": "leave_for_the_job"}),
    "diverged": (2, {**LLAMA, "how": "recall_another_command"}),
    "stopped-agreeing": (2, {**LLAMA, "how": "stop_before_agreeing"}),
    "killed-agreeing": (2, {**LLAMA, "how": "die_before_agreeing"}),
    "absent": (3, {**LLAMA, "how": "stay_away"}),
    "out-of-memory": (2, {**LLAMA, "tp": 2, "how": "run_out_of_memory"}),
}


def jobs_of(table):
    return {name: (ranks, [{"id": name, **case}]) for name, (ranks, case) in table.items()}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost")
    return (folder, *run_jobs("lose", folder, jobs_of(LOST)))


@pytest.fixture(scope="module")
def astray(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stray")
    return (folder, *run_jobs("stray", folder, jobs_of(STRAY)))


@pytest.mark.parametrize("name", LOST)
def test_a_rank_that_is_killed_or_stopped(name, outcome):
    folder, exits, log = outcome
    ranks, case = LOST[name]
    others = [rank for rank in range(ranks) if rank != case["victim"]]
    assert [exits[name][rank] for rank in others] == [0] * len(others), log
    for rank in others:
        known = read(folder, f"{name}.{rank}")
        assert known["reason"] == "RANK_LOST"
        assert f"rank {case['victim']} is lost" in known["message"]
        assert known["after_s"] < DEADLINE_S


@pytest.mark.parametrize("name", ["killed-saving", "stopped-saving"])
def test_nothing_is_left_of_a_child_that_lost_a_rank(name, outcome):
    folder, _exits, _log = outcome
    assert list(folder.glob(f"{name}.child*")) == []


@pytest.mark.parametrize("name", ["left", "diverged"])
def test_a_rank_that_does_not_take_up_what_others_do(name, astray):
    folder, exits, log = astray
    assert exits[name] == [0, 0], log
    known = read(folder, f"{name}.0")
    assert known["reason"] == "RANK_LOST"
    assert known["message"] == "rank 1 is lost: command 1 is not taken up after 12 s"
    assert "rank 1 is lost" in read(folder, f"{name}.1")["message"]


@pytest.mark.parametrize("name", ["stopped-agreeing", "killed-agreeing"])
def test_a_rank_that_is_gone_when_others_agree(name, astray):
    folder, exits, log = astray
    assert exits[name][0] == 0, log
    known = read(folder, f"{name}.0")
    assert (known["reason"], known["message"]) == ("RANK_LOST", "rank 1 is lost: there is no sign of life")


def test_a_rank_that_does_not_attach(astray):
    folder, exits, log = astray
    assert exits["absent"] == [0, 0, 0], log
    known = [read(folder, f"absent.{rank}") for rank in (0, 2)]
    assert [each["reason"] for each in known] == ["RANK_LOST"] * 2
    # The job's store goes with the first rank that gives up.
    assert "rank 1 did not attach within 6 s" in [each["message"] for each in known]


def test_a_rank_whose_model_fails_is_named_at_once(astray):
    folder, exits, log = astray
    assert exits["out-of-memory"] == [0, 0], log
    known = read(folder, "out-of-memory.0")
    assert (known["reason"], known["message"]) == ("GPU_OOM", "rank 1: no room")
