"""Processes that share a job, that are killed at any moment, and that stop and wake up again."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from slice_small import MOMENTS, SIZES, child_of, job_of, journaled, write_parent

from prunebridge_shim.slicing import pieces
from prunebridge_shim.slicing.child import lay_out_child
from prunebridge_shim.slicing.pieces import cut_pieces

SOAK = os.environ.get("PRUNEBRIDGE_SOAK") == "1"
SCRIPT = Path(__file__).with_name("slice_small.py")
PACKAGE = SCRIPT.parents[1]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    source = tmp_path_factory.mktemp("parent")
    write_parent(source)
    return source


def start(parent, job, **options):
    arguments = json.dumps({"source": str(parent), "job": str(job), **options})
    return subprocess.Popen(
        [sys.executable, SCRIPT, arguments], cwd=PACKAGE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )


def outcome_of(process):
    """What a process says at its end; None where it was killed."""
    output, _ = process.communicate(timeout=60)
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0
    return json.loads(output)


def run(parent, job, **options):
    return outcome_of(start(parent, job, **options))


@pytest.fixture(scope="module")
def undisturbed(parent, tmp_path_factory):
    """What a run makes that nothing disturbs: what it says of its shards, and their bytes."""
    job = tmp_path_factory.mktemp("undisturbed") / "job"
    outcome = run(parent, job)
    assert outcome["found_bytes"] == 0
    return outcome["shards"], child_of(job)


@pytest.fixture(scope="module")
def piece_bytes(parent):
    """The bytes of each piece."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in SIZES[pieces].items():
            patch.setattr(pieces, name, value)
        job = job_of(parent, "job")
        return [piece.bytes for piece in cut_pieces(lay_out_child(job, stack).shards)]


def wait_for(what, *processes):
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.005)


def begun(job, pieces):
    """Whether a job has so many pieces on the disk."""
    return lambda: len(journaled(job)) >= pieces


SHARDS, PIECES = 3, 41
DEATHS = [{"write": write, "moment": moment} for write in range(1, PIECES + SHARDS + 1) for moment in MOMENTS]


@pytest.mark.parametrize("death", DEATHS if SOAK else DEATHS[::11], ids=str)
def test_a_kill_at_a_write_of_the_journal_costs_what_was_not_told(parent, undisturbed, piece_bytes, tmp_path, death):
    shards, files = undisturbed
    job = tmp_path / "job"
    assert run(parent, job, die=death) is None
    told = {line["piece"] for line in journaled(job)}
    outcome = run(parent, job)
    assert outcome["found_bytes"] == sum(piece_bytes[number] for number in told)
    assert outcome["shards"] == shards
    assert child_of(job) == files


def test_kills_at_random_moments_one_after_the_other(parent, undisturbed, tmp_path):
    shards, files = undisturbed
    moments = random.Random(3)
    killed = 0
    for round_ in range(20 if SOAK else 3):
        job = tmp_path / str(round_)
        for _ in range(4):
            process = start(parent, job, slow=0.02)
            time.sleep(moments.uniform(0.15, 0.8))
            process.kill()
            killed += outcome_of(process) is None
        assert run(parent, job)["shards"] == shards
        assert child_of(job) == files
    assert killed > 0


def test_what_two_kills_left_is_found_whole(parent, undisturbed, piece_bytes, tmp_path):
    _, files = undisturbed
    job = tmp_path / "job"
    for count in (10, 25):
        process = start(parent, job, slow=0.01)
        wait_for(begun(job, count), process)
        process.kill()
        process.communicate()
    told = {line["piece"] for line in journaled(job)}
    assert run(parent, job)["found_bytes"] == sum(piece_bytes[number] for number in told)
    assert child_of(job) == files


def test_processes_that_start_at_once_share_the_work(parent, undisturbed, piece_bytes, tmp_path):
    shards, files = undisturbed
    job = tmp_path / "job"
    outcomes = [outcome_of(process) for process in [start(parent, job, slow=0.1) for _ in range(3)]]
    assert all(one["shards"] == shards for one in outcomes)
    assert child_of(job) == files
    assert sorted(line["piece"] for line in journaled(job)) == list(range(PIECES)), "each piece is cut once"
    assert sum(one["found_bytes"] for one in outcomes) == 2 * sum(piece_bytes)


def test_one_killed_and_one_stopped_of_three(parent, undisturbed, tmp_path):
    shards, files = undisturbed
    job = tmp_path / "job"
    killed, stopped, last = (start(parent, job, slow=0.05) for _ in range(3))
    wait_for(begun(job, 12), killed, stopped, last)
    stopped.send_signal(signal.SIGSTOP)
    killed.kill()
    try:
        assert outcome_of(killed) is None
        assert outcome_of(last)["shards"] == shards
        assert child_of(job) == files
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert outcome_of(stopped)["shards"] == shards
    assert child_of(job) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job"]


def test_one_that_wakes_up_when_all_is_published_does_no_harm(parent, undisturbed, tmp_path):
    _, files = undisturbed
    job, published = tmp_path / "job", tmp_path / "published"
    stopped = start(parent, job, slow=0.05)
    wait_for(begun(job, 5), stopped)
    stopped.send_signal(signal.SIGSTOP)
    assert "shards" in run(parent, job)
    (job / "child").rename(published)
    shutil.rmtree(job)
    stopped.send_signal(signal.SIGCONT)
    assert "reason" in outcome_of(stopped)
    assert {path.name: path.read_bytes() for path in published.iterdir()} == files
    assert not job.exists()


def test_one_that_wakes_up_in_the_folder_of_another_job_does_no_harm(parent, tmp_path):
    job, fresh = tmp_path / "job", tmp_path / "fresh"
    assert "shards" in run(parent, fresh, seed=1)
    stopped = start(parent, job, slow=0.05, place="here")
    wait_for(begun(job, 5), stopped)
    stopped.send_signal(signal.SIGSTOP)
    before = (job / "job.json").read_bytes()
    other = start(parent, job, slow=0.2, place="elsewhere", seed=1)
    wait_for(lambda: (job / "job.json").exists() and (job / "job.json").read_bytes() != before, other)
    wait_for(begun(job, 3), other)
    stopped.send_signal(signal.SIGCONT)
    outcome = outcome_of(stopped)
    assert other.poll() is None, "it woke up in the middle"
    assert outcome["reason"] == "TARGET_BUSY"
    assert "was removed meanwhile" in outcome["message"]
    assert outcome_of(other)["found_bytes"] == 0
    assert child_of(job) == child_of(fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "job"]


def test_two_jobs_do_not_share_a_folder(parent, undisturbed, tmp_path):
    _, files = undisturbed
    job = tmp_path / "job"
    first = start(parent, job, slow=0.05)
    wait_for(begun(job, 1), first)
    assert run(parent, job, seed=1)["reason"] == "TARGET_BUSY"
    assert "shards" in outcome_of(first)
    assert child_of(job) == files


def test_several_begin_anew_what_another_job_left(parent, tmp_path):
    job = tmp_path / "job"
    run(parent, job, die={"write": 5, "moment": "after"}, seed=1)
    outcomes = [outcome_of(process) for process in [start(parent, job) for _ in range(3)]]
    assert [list(one) for one in outcomes] == [["shards", "found_bytes", "folder_id"]] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job"]


def test_a_run_that_wants_more_than_another_gave_makes_it(parent, undisturbed, tmp_path):
    shards, _ = undisturbed
    job = tmp_path / "job"
    plain, wanting = start(parent, job, slow=0.1), start(parent, job, slow=0.1, sha256=True)
    assert outcome_of(plain)["shards"]
    outcome = outcome_of(wanting)
    assert [{**one, "sha256": ""} for one in outcome["shards"]] == shards
    assert all(len(one["sha256"]) == 64 for one in outcome["shards"])
