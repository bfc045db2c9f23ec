"""What the shim takes of its clients, and what it refuses before it costs much."""

import contextlib
import itertools
import socket
import struct
import threading
import time
import uuid

import grpc
import numpy as np
import pytest
from client import TOKEN, Client, chunk, detail_of, reason_of, spawn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, session_pb2, tensor_pb2, work_pb2
from prunebridge_shim.rpc import limits, options
from prunebridge_shim.rpc.access import Access, Right
from prunebridge_shim.rpc.limits import Allowance
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.wire import BatchAssembler

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ENHANCE_YOUR_CALM = 11


@pytest.fixture
def own_shim(socket_folder):
    """The address of a shim that a test may exhaust."""
    process, ready = spawn(socket_folder)
    yield ready["address"]
    process.kill()
    process.communicate()


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value


def reason_refused(call):
    return reason_of(detail_of(refused(call)))


def handshake(client):
    request = session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1)
    return client.session.Handshake(request, timeout=60)


def waiting_work():
    return work_pb2.EvaluateLoss(model_id="none", feed_id=uuid.uuid4().hex)


def request_of(work):
    return operation_pb2.StartRequest(request_id=uuid.uuid4().hex, evaluate_loss=work)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_handshake_tells_the_limits(shim):
    told = handshake(shim).limits
    assert told.max_message_bytes == options.MAX_MESSAGE_BYTES
    assert told.max_batch_bytes == options.MAX_BATCH_BYTES
    assert told.max_operations == options.MAX_OPERATIONS
    assert told.starts_per_second == options.STARTS_PER_SECOND


def test_an_allowance_is_used_up_and_comes_back():
    now = 0.0
    allowance = Allowance(2, 3, clock=lambda: now)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    now = 0.4
    assert not allowance.take()
    now = 1.0
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now = 1000.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def too_large(infos):
    assembler = BatchAssembler()
    with pytest.raises(ShimError) as caught:
        for name, shape in infos:
            info = tensor_pb2.TensorInfo(name=name, dtype="DTYPE_U8", shape=shape)
            assembler.add(tensor_pb2.TensorChunk(info=info), bytes(shape[0]) if len(shape) == 1 else b"")
    assert caught.value.reason is Reason.LIMIT_EXCEEDED
    return caught.value.message


def test_a_batch_is_refused_by_the_first_chunk_of_the_tensor_that_is_too_much(monkeypatch):
    monkeypatch.setattr(limits, "MAX_BATCH_BYTES", 100)
    assert "'b' of 41 bytes" in too_large([("a", [60]), ("b", [41])])
    assert "'huge'" in too_large([("huge", [1 << 40, 1 << 40])])
    monkeypatch.setattr(limits, "MAX_BATCH_TENSORS", 3)
    assert "more than 3 tensors" in too_large([(name, [1]) for name in "abcd"])
    assembler = BatchAssembler()
    for _ in range(3):  # each batch has the room again
        whole = chunk("a", np.zeros(60, np.uint8))
        assembler.add(whole, whole.data)
        assert assembler.end_batch()["a"].array.nbytes == 60


def test_a_batch_that_claims_to_be_huge_ends_its_feed(shim):
    work = waiting_work()
    operation = shim.start(evaluate_loss=work)
    info = tensor_pb2.TensorInfo(name="x", dtype="DTYPE_U8", shape=[options.MAX_BATCH_BYTES + 1])
    message = operation_pb2.FeedRequest(feed_id=work.feed_id, chunk=tensor_pb2.TensorChunk(info=info, data=b"x"))
    with pytest.raises(grpc.RpcError) as caught:
        shim.feed_raw([message])
    assert reason_of(detail_of(caught.value)) in {"LIMIT_EXCEEDED", "FEED_LOST"}
    assert shim.watch(operation)[-1].HasField("failed")


def test_operations_that_wait_are_counted(own_shim):
    client = Client(own_shim)
    started = [client.start(f"request-{n}", tokenize=work_pb2.Tokenize(path="/x", feed_id=f"{n}")) for n in range(64)]
    assert len(started) == options.MAX_OPERATIONS
    assert reason_refused(lambda: client.start(evaluate_loss=waiting_work())) == "LIMIT_EXCEEDED"
    assert client.start("request-7", tokenize=work_pb2.Tokenize(path="/x", feed_id="7")) == started[7]
    for operation in started:
        client.cancel(operation)
        client.watch(operation)
    wait_until(lambda: client.operations.Start.future(request_of(waiting_work())).exception() is None)


def test_starts_are_counted_for_each_token():
    access = Access(dict.fromkeys(("one", "two"), (Right.READ,)))
    one, two = (access.of_call([("authorization", f"Bearer {token}")]) for token in ("one", "two"))
    assert sum(one.starts.take() for _ in range(3 * options.STARTS_AT_ONCE)) < 2 * options.STARTS_AT_ONCE
    assert two.starts.take()


def test_a_flood_of_starts_is_refused(own_shim):
    client = Client(own_shim)
    request = operation_pb2.StartRequest(request_id="one", close_model=work_pb2.CloseModel(model_id="none"))
    calls = [client.operations.Start.future(request, timeout=60) for _ in range(4)]
    assert len({call.result().operation_id for call in calls}) == 1
    reasons = set()
    deadline = time.monotonic() + 60
    while "LIMIT_EXCEEDED" not in reasons and time.monotonic() < deadline:
        calls = [client.operations.Start.future(request, timeout=60) for _ in range(500)]
        reasons |= {reason_of(detail_of(error)) for error in (call.exception() for call in calls) if error is not None}
    assert reasons == {"LIMIT_EXCEEDED"}


def test_watches_without_end_leave_room_for_other_calls(own_shim):
    client = Client(own_shim)
    operation = client.start(tokenize=work_pb2.Tokenize(path="/x", feed_id="never"))
    request = operation_pb2.WatchRequest(operation_id=operation)
    watches = [client.operations.Watch(request, timeout=120) for _ in range(3 * options.RPC_THREADS)]
    most = options.STREAMS_AT_A_TIME["/prunebridge.v1.OperationService/Watch"]
    assert handshake(client).protocol == 1
    assert client.start(close_model=work_pb2.CloseModel(model_id="x"))
    wait_until(lambda: sum(not watch.done() for watch in watches) == most)
    kept, dropped = ([watch for watch in watches if watch.done() is done] for done in (False, True))
    assert {reason_refused(lambda watch=watch: next(watch)) for watch in dropped} == {"LIMIT_EXCEEDED"}
    client.cancel(operation)
    assert all(list(watch)[-1].HasField("failed") for watch in kept)
    # Places are given back.
    assert client.watch(operation)[-1].HasField("failed")


@pytest.mark.parametrize(
    ("method", "token"),
    [("/prunebridge.v1.OperationService/Start", TOKEN), ("/grpc.health.v1.Health/Check", None)],
)
def test_calls_that_send_no_request_leave_room_for_other_calls_and_are_ended(own_shim, method, token):
    client = Client(own_shim)
    opened = threading.Event()

    def silence():
        opened.wait(60)
        yield from ()

    call = Client(own_shim, token).channel.stream_unary(method)
    calls = [call.future(silence(), timeout=120) for _ in range(2 * options.RPC_THREADS)]
    try:
        assert handshake(client).protocol == 1
        wait_until(lambda: sum(not one.done() for one in calls) == options.UNARY_CALLS_AT_A_TIME)
        assert handshake(client).protocol == 1
        # Places are given back, to calls that came late too, and nobody else has cancelled any.
        wait_until(lambda: all(one.done() for one in calls))
        assert sum(one.code() is grpc.StatusCode.CANCELLED for one in calls) >= options.UNARY_CALLS_AT_A_TIME
        answered = call.future(iter([b""]), timeout=60).exception()
        assert answered is None or answered.code() is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        for one in calls:
            one.cancel()
        opened.set()


def test_places_of_watches_that_were_dropped_are_given_back(own_shim):
    client = Client(own_shim)
    operation = client.start(tokenize=work_pb2.Tokenize(path="/x", feed_id="never"))
    request = operation_pb2.WatchRequest(operation_id=operation)
    most = options.STREAMS_AT_A_TIME["/prunebridge.v1.OperationService/Watch"]
    watches = [client.operations.Watch(request, timeout=120) for _ in range(2 * most)]
    wait_until(lambda: sum(not watch.done() for watch in watches) == most)
    for watch in watches:
        watch.cancel()
    client.cancel(operation)

    def is_watched():
        with contextlib.suppress(grpc.RpcError):
            return client.watch(operation)[-1].HasField("failed")

    wait_until(is_watched)


def test_metadata_that_is_too_large_is_refused(shim):
    call = shim.channel.unary_unary("/prunebridge.v1.SessionService/Handshake")
    refused(lambda: call(b"", timeout=20, metadata=(("x-large", "x" * 20_000),)))


def test_a_message_that_is_too_large_is_refused(shim):
    request = operation_pb2.StartRequest(request_id="x" * (options.MAX_MESSAGE_BYTES + 1))
    refused(lambda: shim.operations.Start(request, timeout=20))


def connect(address):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(30)
    stream.connect(address.removeprefix("unix:"))
    return stream


@pytest.mark.parametrize("words", [b"", PREFACE[:10]])
def test_who_connects_and_says_nothing_is_let_go(shim_address, words):
    with connect(shim_address) as stream:
        stream.sendall(words)
        began = time.monotonic()
        while stream.recv(4096):
            pass
    assert time.monotonic() - began < 10


def test_who_pings_without_end_is_told_to_calm_down(shim_address):
    with connect(shim_address) as stream:
        stream.sendall(PREFACE + frame(SETTINGS))
        stream.sendall(b"".join(frame(PING, bytes(8)) for _ in range(100)))
        codes = [struct.unpack(">I", payload[4:8])[0] for kind, payload in frames(stream) if kind == GOAWAY]
    assert codes[0] == ENHANCE_YOUR_CALM


@pytest.fixture
def shim_address(own_shim):
    return own_shim


def frame(kind, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


def frames(stream):
    data = b""
    while received := stream.recv(65536):
        data += received
    while data:
        length = int.from_bytes(data[:3], "big")
        yield data[3], data[9 : 9 + length]
        data = data[9 + length :]


def test_an_operation_keeps_its_latest_progress_alone():
    operation = Operation("slice", object(), None)
    operation.begin()
    tick = operation.ticker("slicing", "bytes")
    for n in itertools.count():
        operation._last_progress = 0.0
        tick(n, 1_000)
        if n == 1_000:
            break
    (latest,) = itertools.islice(operation.follow(0, lambda: False), 1)
    assert (latest.seq, latest.progress.done) == (1_001, 1_000)
    assert sum(isinstance(held, operation_pb2.WatchResponse) for held in vars(operation).values()) == 1
    assert not any(isinstance(held, list) for held in vars(operation).values())
