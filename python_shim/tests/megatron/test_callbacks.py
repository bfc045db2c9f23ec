"""Jobs whose training loop is a framework's: its events attach, step and detach."""

import importlib.util
import json
import os
import subprocess
import sys

import grpc
import pytest
from client import Client
from launch import HERE, wait_for
from listeners import write_token
from test_guests import TOKEN, batches_of, check_scores, collect, handshake

needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not there")


@pytest.mark.parametrize("framework", [pytest.param("lightning", marks=needs_lightning), "bridge"])
def test_a_client_is_served_between_the_steps_of_a_framework(framework, tmp_path):
    write_token(tmp_path / "token", TOKEN)
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    job = subprocess.Popen(
        [sys.executable, HERE / "framework_jobs.py", framework, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        client = Client(json.loads(wait_for(tmp_path / "ready", job))["address"], TOKEN)
        work = collect(client, "llama-gqa", feed_id="f")
        operation = client.start(collect=work)
        feed = client.feed_in_background("f", batches_of("llama-gqa"))
        (tmp_path / "asked").touch()
        assert feed.result(60).batches == len(batches_of("llama-gqa"))
        assert client.watch(operation)[-1].HasField("succeeded")
        check_scores(client.read(operation), "llama-gqa")
        assert job.wait(60) == 0, job.communicate()[0]
    finally:
        job.kill()
        log, _ = job.communicate()
    assert (tmp_path / "done").exists(), log
    with pytest.raises(grpc.RpcError):
        handshake(client)
