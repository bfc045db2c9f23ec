"""Jobs that lose a rank while they have a guest, and those that refuse it: what clients and ranks are told."""

import json
import os
import signal
import threading
import time

import pytest
from client import FeedCall, Valve, feed_messages, reason_of
from launch import read
from test_guests import batches_of, collect, health, refusal, running

from prunebridge_shim.rpc.health import NOT_SERVING

LOST = {
    "killed": (2, {"parent": "llama-gqa", "tp": 2, "how": "step_until_lost"}),
    "stopped": (3, {"parent": "llama-gqa", "how": "step_until_lost"}),
    "idle": (2, {"parent": "llama-gqa", "how": "train_on"}),
}


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """What clients and ranks were told when a rank was lost: at work by each signal, and while the job trained."""
    folder = tmp_path_factory.mktemp("lost")
    told = {}

    def lose(jobs, name, number):
        client, parent = jobs.client(name), "llama-gqa"
        operation = client.start(collect=collect(client, parent, feed_id="f"))
        valve = Valve(batches_of(parent) * 100)
        if name != "idle":
            FeedCall(client.feeds.Feed(feed_messages("f", valve), timeout=60))
            valve.let(5)
            while valve.sent < 5:
                time.sleep(0.01)
        os.kill(jobs.ready(name)["pids"][1], number)
        began = time.time()
        valve.let(400)
        failed = client.watch(operation)[-1].failed
        told[name] = (reason_of(failed), failed.message, time.time() - began)
        if name == "idle":
            told["health"] = health(client)
            told["asked again"] = refusal(lambda: client.start(collect=collect(client, parent, feed_id="g")))[0]

    with running(folder, LOST) as jobs:
        numbers = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "idle": signal.SIGKILL}
        threads = [threading.Thread(target=lose, args=(jobs, name, number)) for name, number in numbers.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return folder, told, *jobs.outcome


@pytest.mark.parametrize("name", LOST)
def test_clients_are_told_of_a_lost_rank(name, lost):
    _folder, told, _exits, log = lost
    assert name in told, log
    reason, message, after_s = told[name]
    assert (reason, message[:14]) == ("RANK_LOST", "rank 1 is lost")
    assert after_s < 12


def test_a_job_with_a_lost_rank_is_not_healthy(lost):
    _folder, told, _exits, log = lost
    assert (told["health"], told["asked again"]) == (NOT_SERVING, "RANK_LOST"), log


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_ranks_that_are_left_return_to_the_job(name, lost):
    folder, _told, exits, log = lost
    for rank in range(LOST[name][0]):
        if rank != 1:
            assert exits[name][rank] == 0, log
            known = read(folder, f"{name}.{rank}")
            assert known["reason"] == "RANK_LOST"
            assert "rank 1 is lost" in known["message"]


def test_an_entrance_that_cannot_be_is_refused_on_all_ranks(tmp_path):
    no_authority = {"address": None, "dial": "192.0.2.1:7443", "dial_ca": str(tmp_path / "token")}
    table = {
        "open": (2, {"parent": "llama-gqa", "how": "be_refused", "attach": {"address": "0.0.0.0:0"}}),
        "both": (1, {"parent": "llama-gqa", "how": "be_refused", "attach": {"dial": "localhost:1"}}),
        "unproven": (1, {"parent": "llama-gqa", "how": "be_refused", "attach": no_authority}),
    }
    with running(tmp_path, table) as jobs:
        pass
    exits, log = jobs.outcome
    assert exits == {"open": [0, 0], "both": [0], "unproven": [0]}, log
    for rank in range(2):
        known = read(tmp_path, f"open.{rank}")
        assert known["reason"] == "INVALID_REQUEST"
        assert "in the clear" in known["message"]
        assert json.loads((tmp_path / f"open.{rank}.left").read_text()) == []
    assert "authorities" in read(tmp_path, "unproven.0")["hint"]
    assert "listens on an address or dials out" in read(tmp_path, "both.0")["message"]
