import contextlib
import itertools
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from client import PACKAGE_ROOT, TOKEN, Client, detail_of, reason_of, spawn
from tiny import token_ids

from prunebridge_shim import __version__
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, session_pb2, work_pb2

BLOCK = "import sys\nfor name in {names!r}: sys.modules[name] = None\n"
HIDE = (
    "import importlib.util as u\nreal = u.find_spec\n"
    "u.find_spec = lambda name, *rest: None if name in {names!r} else real(name, *rest)\n"
)


@contextlib.contextmanager
def running(folder, **options):
    process, ready = spawn(folder, **options)
    try:
        yield process, ready
    finally:
        process.kill()
        process.communicate()


def refused(folder, **options):
    process, line = spawn(folder, **options)
    process.wait(20)
    process.communicate()
    assert process.returncode == 1
    assert line["event"] == "failed"
    return line["reason"], line["message"]


def test_the_ready_line_says_where_it_is(socket_folder):
    with running(socket_folder) as (process, ready):
        assert ready == {
            "event": "ready",
            "address": f"unix:{socket_folder}/shim.sock",
            "boot_id": ready["boot_id"],
            "pid": process.pid,
            "version": __version__,
            "protocol": 1,
        }
        request = session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1)
        assert Client(ready["address"]).session.Handshake(request).boot_id == ready["boot_id"]


def test_it_may_open_as_many_files_as_its_user(socket_folder, few_files):
    with running(socket_folder) as (process, _):
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == few_files


def test_sigterm_ends_it_cleanly(socket_folder):
    with running(socket_folder) as (process, _):
        process.terminate()
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
        assert list(socket_folder.iterdir()) == []


@pytest.mark.parametrize("order", [(signal.SIGTERM, signal.SIGCONT), (signal.SIGCONT, signal.SIGTERM)])
def test_sigterm_ends_one_that_was_stopped(socket_folder, order):
    with running(socket_folder) as (process, _):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        for number in order:
            process.send_signal(number)
        assert process.wait(10) == 0


def test_the_end_of_stdin_ends_it(socket_folder):
    with running(socket_folder) as (process, _):
        process.stdin.close()
        process.stdin = None
        assert process.wait(10) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_parent_takes_it_along(socket_folder):
    # The parent's stdin pipe is kept open here, so that only the kernel's signal can be at work.
    read_fd, write_fd = os.pipe()
    os.write(write_fd, f"{TOKEN}\n".encode())
    code = (
        "import sys, time; sys.path[:0] = sys.argv[1:3]\nfrom client import spawn\n"
        f"process, ready = spawn(sys.argv[3], stdin={read_fd})\nprint(process.pid, flush=True)\ntime.sleep(60)"
    )
    arguments = [PACKAGE_ROOT, PACKAGE_ROOT / "tests", socket_folder]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, pass_fds=[read_fd]
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert ends_within(pid, 5)
    os.close(read_fd)
    os.close(write_fd)


def ends_within(pid, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError), Path(f"/proc/{pid}/stat").open() as file:
            if file.read().rsplit(")")[-1].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


def test_another_parent_is_refused(socket_folder):
    reason, message = refused(socket_folder, parent=1)
    assert reason == "INVALID_REQUEST"
    assert "and not 1" in message


def test_a_folder_that_others_can_enter_is_refused(socket_folder):
    socket_folder.chmod(0o755)
    reason, message = refused(socket_folder)
    assert reason == "PATH_DENIED"
    assert "mode 755" in message


def test_a_socket_that_is_served_is_refused(socket_folder):
    with running(socket_folder):
        reason, message = refused(socket_folder)
        assert reason == "INVALID_REQUEST"
        assert "another process serves" in message


def test_a_dead_socket_is_taken_over(socket_folder):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_folder / "shim.sock"))
    with running(socket_folder) as (_, ready):
        assert ready["event"] == "ready"
        assert stat.S_ISSOCK((socket_folder / "shim.sock").stat().st_mode)


def test_a_file_in_the_sockets_place_is_left_alone(socket_folder):
    (socket_folder / "shim.sock").write_text("mine")
    assert refused(socket_folder)[0] == "INVALID_REQUEST"
    assert (socket_folder / "shim.sock").read_text() == "mine"


def test_a_socket_path_that_is_too_long_is_refused(socket_folder):
    assert "longer than" in refused(socket_folder, socket="x" * 120)[1]


@pytest.mark.parametrize("package", ["grpc", "google.protobuf", "numpy", "safetensors"])
def test_an_interpreter_that_lacks_the_basics_says_so(socket_folder, package):
    reason, message = refused(socket_folder, prelude=BLOCK.format(names=[package]))
    assert reason == "MISSING_DEPENDENCY"
    assert package.split(".")[0] in message
    assert sys.executable in message


def test_without_torch_it_slices_and_refuses_the_rest(socket_folder):
    with running(socket_folder, prelude=HIDE.format(names=["torch", "transformers"])) as (_, ready):
        client = Client(ready["address"])
        answer = client.session.Handshake(session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1))
        assert list(answer.capabilities) == ["slice"]
        assert [device.name for device in answer.devices] == ["cpu"]
        assert set(answer.libraries) == {"python", "gather"}
        with pytest.raises(grpc.RpcError) as caught:
            client.start(open_model=work_pb2.OpenModel(path="/x", device="auto", dtype="auto"))
        detail = detail_of(caught.value)
        assert reason_of(detail) == "MISSING_DEPENDENCY"
        assert "torch and transformers" in detail.message
        assert "PRUNEBRIDGE_PYTHON" in detail.hint


def test_without_torch_pruning_it_traces_nothing_and_says_what_brings_it(socket_folder):
    with running(socket_folder, prelude=HIDE.format(names=["torch_pruning"])) as (_, ready):
        client = Client(ready["address"])
        answer = client.session.Handshake(session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1))
        assert "open_network" in answer.capabilities
        assert "trace_network" not in answer.capabilities
        with pytest.raises(grpc.RpcError) as caught:
            client.start(trace_network=work_pb2.TraceNetwork(model_id="model-1", feed_id="f"))
        detail = detail_of(caught.value)
        assert reason_of(detail) == "MISSING_DEPENDENCY"
        assert "torch_pruning" in detail.message
        assert "pip install 'prunebridge-shim[networks]'" in detail.hint


def test_sigterm_ends_what_computes_and_its_feed(socket_folder, checkpoints, rng):
    with running(socket_folder) as (process, ready):
        client = Client(ready["address"])
        done, _ = client.run(open_model=work_pb2.OpenModel(path=str(checkpoints("llama")), device="cpu", dtype="auto"))
        work = work_pb2.EvaluateLoss(model_id=done.succeeded.model_opened.model_id, feed_id="endless")
        operation = client.start(evaluate_loss=work)
        watch = client.operations.Watch(operation_pb2.WatchRequest(operation_id=operation))
        batch = {"input_ids": token_ids(rng, 1)[0]}
        call = client.feed_in_background("endless", itertools.repeat(batch))
        assert next(watch).HasField("progress")
        process.terminate()
        assert reason_of(list(watch)[-1].failed) == "CANCELLED"
        with pytest.raises(grpc.RpcError) as caught:
            call.result(timeout=20)
        assert reason_of(detail_of(caught.value)) == "FEED_LOST"
        assert process.wait(20) == 0
