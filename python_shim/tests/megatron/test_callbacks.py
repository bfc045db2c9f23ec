"""Jobs whose training loop is a framework's: its events attach, step and detach."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import grpc
import pytest
from client import Client, reason_of
from launch import HERE, wait_for
from listeners import write_token
from test_guests import TOKEN, batches_of, check_scores, collect, handshake

needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not there")


@contextmanager
def running(framework, folder):
    """A job of one rank, and a client of it."""
    write_token(folder / "token", TOKEN)
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    job = subprocess.Popen(
        [sys.executable, HERE / "framework_jobs.py", framework, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield job, Client(json.loads(wait_for(folder / "ready", job))["address"], TOKEN)
        assert job.wait(60) == 0
    finally:
        job.kill()
        log, _ = job.communicate()
    assert (folder / "done").exists(), log


@pytest.mark.parametrize("framework", [pytest.param("lightning", marks=needs_lightning), "bridge"])
def test_a_client_is_served_between_the_steps_of_a_framework(framework, tmp_path):
    with running(framework, tmp_path) as (_, client):
        work = collect(client, "llama-gqa", feed_id="f")
        operation = client.start(collect=work)
        feed = client.feed_in_background("f", batches_of("llama-gqa"))
        (tmp_path / "asked").touch()
        assert feed.result(60).batches == len(batches_of("llama-gqa"))
        assert client.watch(operation)[-1].HasField("succeeded")
        check_scores(client.read(operation), "llama-gqa")
    with pytest.raises(grpc.RpcError):
        handshake(client)


def test_a_job_that_ends_is_not_kept_by_who_waits(tmp_path):
    with running("forgetful", tmp_path) as (_, client):
        operation = client.start(collect=collect(client, "llama-gqa", feed_id="f"))
        failed = []
        waiting = threading.Thread(target=lambda: failed.append(client.watch(operation)[-1].failed), daemon=True)
        waiting.start()
        (tmp_path / "asked").touch()
        waiting.join(60)
    assert reason_of(failed[0]) == "CANCELLED"
