"""Operations and feeds of a real shim, over its socket."""

import contextlib
import threading
import time
import uuid

import grpc
import numpy as np
import pytest
from client import Asking, Valve, chunk, detail_of, feed_messages, reason_of
from tiny import token_ids

from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, session_pb2, work_pb2
from prunebridge_shim.rpc.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, Request, Response
from prunebridge_shim.rpc.options import MAX_MESSAGE_BYTES


@pytest.fixture(scope="module")
def model_id(shim, checkpoints):
    last, _ = shim.run(open_model=work_pb2.OpenModel(path=str(checkpoints("llama")), device="cpu", dtype="auto"))
    return last.succeeded.model_opened.model_id


@pytest.fixture
def loss_work(model_id):
    return work_pb2.EvaluateLoss(model_id=model_id, feed_id=uuid.uuid4().hex)


@pytest.fixture
def batches(rng):
    return [{"input_ids": ids} for ids in token_ids(rng, batches=20)]


def failed_call(call):
    with pytest.raises(grpc.RpcError) as caught:
        call.result(timeout=30)
    return reason_of(detail_of(caught.value))


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_handshake(shim):
    answer = shim.session.Handshake(session_pb2.HandshakeRequest(protocol_min=0, protocol_max=9))
    assert answer.protocol == 1
    kinds = {"slice", "tokenize", "open_model", "collect", "evaluate_loss", "forward", "cut_model", "open_subnet"}
    assert kinds <= set(answer.capabilities)
    assert answer.devices[-1].name == "cpu"
    assert answer.devices[-1].memory_bytes > 1 << 28
    assert answer.ranks.world_size == answer.ranks.tensor == answer.ranks.expert == 1
    assert answer.limits.chunk_bytes == 1 << 20
    assert answer.libraries["torch"]
    assert answer.libraries["gather"] in {"compiled", "numpy"}


def test_a_client_of_another_protocol_is_told_both_ranges(shim):
    with pytest.raises(grpc.RpcError) as caught:
        shim.session.Handshake(session_pb2.HandshakeRequest(protocol_min=2, protocol_max=3))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    detail = detail_of(caught.value)
    assert reason_of(detail) == "PROTOCOL_MISMATCH"
    assert "2 to 3" in detail.message
    assert "1 to 1" in detail.message


def test_the_same_request_is_the_same_operation(shim, loss_work, batches):
    first = shim.start("once", evaluate_loss=loss_work)
    assert shim.start("once", evaluate_loss=loss_work) == first
    shim.feed(loss_work.feed_id, batches)
    events = shim.watch(first)
    assert shim.start("once", evaluate_loss=loss_work) == first
    assert shim.watch(first)[-1] == events[-1]


def test_a_watch_is_taken_up_where_it_was(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    valve = Valve(batches)
    call = shim.feed_in_background(loss_work.feed_id, valve)
    valve.let()
    watch = shim.operations.Watch(operation_pb2.WatchRequest(operation_id=operation))
    assert next(watch).seq == 1
    watch.cancel()
    time.sleep(0.15)
    valve.let(len(batches))
    assert call.result(timeout=30).batches == len(batches)
    rest = shim.watch(operation, after_seq=1)
    assert rest[-1].HasField("succeeded")
    assert [event.seq for event in rest] == sorted({event.seq for event in rest})
    assert rest[0].seq > 1
    # Of what is over, only the last event is left.
    assert shim.watch(operation) == rest[-1:]
    assert shim.watch(operation, after_seq=rest[-1].seq) == []


def test_progress_tells_how_far(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    valve = Valve(batches)
    call = shim.feed_in_background(loss_work.feed_id, valve)
    valve.let()
    # Progress is forgotten when the end is known.
    first = next(shim.operations.Watch(operation_pb2.WatchRequest(operation_id=operation)))
    valve.let(len(batches))
    assert call.result(timeout=30).batches == len(batches)
    assert (first.progress.phase, first.progress.unit) == ("evaluating", "batches")


@pytest.mark.parametrize("call", ["Watch", "Cancel", "ReadResult"])
def test_an_unknown_operation(shim, call):
    request = getattr(operation_pb2, f"{call}Request")(operation_id="nothing")
    with pytest.raises(grpc.RpcError) as caught:
        answer = getattr(shim.operations, call)(request)
        list(answer)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(detail_of(caught.value)) == "UNKNOWN_OPERATION"


def test_cancel_while_it_runs(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    valve = Valve(batches)
    call = shim.feed_in_background(loss_work.feed_id, valve)
    valve.let(2)
    wait_until(lambda: valve.sent == 2)
    shim.cancel(operation)
    assert reason_of(shim.watch(operation)[-1].failed) == "CANCELLED"
    assert failed_call(call) == "FEED_LOST"
    valve.let(len(batches))


def test_cancel_while_it_is_queued(shim, loss_work, model_id, batches):
    running = shim.start(evaluate_loss=loss_work)
    queued = shim.start(evaluate_loss=work_pb2.EvaluateLoss(model_id=model_id, feed_id="queued"))
    shim.cancel(queued)
    assert [reason_of(event.failed) for event in shim.watch(queued)] == ["CANCELLED"]
    with pytest.raises(grpc.RpcError) as caught:
        shim.feed("queued", batches)
    assert reason_of(detail_of(caught.value)) == "FEED_LOST"
    shim.feed(loss_work.feed_id, batches)
    assert shim.watch(running)[-1].HasField("succeeded")


def test_cancel_after_its_end_changes_nothing(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    shim.feed(loss_work.feed_id, batches)
    events = shim.watch(operation)
    shim.cancel(operation)
    assert shim.watch(operation) == events[-1:]


def test_the_sender_is_held_back_while_its_operation_waits(shim, loss_work, model_id, rng):
    blocker = work_pb2.EvaluateLoss(model_id=model_id, feed_id="blocker")
    first = shim.start(evaluate_loss=blocker)
    held = shim.start(evaluate_loss=loss_work)
    big = [{"input_ids": np.zeros((1, 1 << 18), np.int64)}] * 40
    sent = 0

    def counted():
        nonlocal sent
        for batch in big:
            sent += 1
            yield batch

    call = shim.feed_in_background(loss_work.feed_id, counted())
    time.sleep(1.0)
    in_flight = 10  # batches of 2 MiB in the window and in gRPC's buffers on both sides
    assert 0 < sent < in_flight
    shim.cancel(held)
    assert failed_call(call) == "FEED_LOST"
    shim.cancel(first)
    shim.watch(first)


def test_a_stream_that_breaks_off_fails_the_operation(shim, model_id, batches):
    for round_ in range(20):
        work = work_pb2.EvaluateLoss(model_id=model_id, feed_id=f"broken {round_}")
        operation = shim.start(evaluate_loss=work)
        valve = Valve(batches)
        call = shim.feed_in_background(work.feed_id, valve)
        valve.let(3)
        wait_until(lambda valve=valve: valve.sent == 3)
        time.sleep(0.002 * round_)
        call.cancel()
        assert reason_of(shim.watch(operation)[-1].failed) == "FEED_LOST"
        valve.let(len(batches))


def test_an_operation_that_ends_fails_the_stream(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    valve = Valve([{"input_ids": np.full((1, 4), 10**6)}, *batches])
    call = shim.feed_in_background(loss_work.feed_id, valve)
    valve.let(1)
    assert reason_of(shim.watch(operation)[-1].failed) == "BAD_DATA"
    assert failed_call(call) == "FEED_LOST"
    valve.let(len(batches) + 1)


def test_a_feed_that_nobody_reads(shim, batches):
    with pytest.raises(grpc.RpcError) as caught:
        shim.feed("nobody's", batches)
    assert reason_of(detail_of(caught.value)) == "INVALID_REQUEST"
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_feed_that_nobody_opens_holds_up_no_other_work(shim, loss_work, model_id, batches):
    abandoned = shim.start(evaluate_loss=loss_work)
    other = work_pb2.EvaluateLoss(model_id=model_id, feed_id=uuid.uuid4().hex)
    operation = shim.start(evaluate_loss=other)
    shim.feed(other.feed_id, batches)
    assert shim.watch(operation)[-1].HasField("succeeded")
    failed = shim.watch(abandoned)[-1].failed
    assert reason_of(failed) == "FEED_LOST"
    assert "no client opened feed" in failed.message


def test_a_feed_has_one_reader_and_one_stream(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    with pytest.raises(grpc.RpcError, match="belongs to operation"):
        shim.start(evaluate_loss=loss_work)
    valve = Valve(batches)
    call = shim.feed_in_background(loss_work.feed_id, valve)
    valve.let(1)
    wait_until(lambda: valve.sent == 1)
    time.sleep(0.1)
    with pytest.raises(grpc.RpcError, match="has a stream already"):
        shim.feed(loss_work.feed_id, batches)
    valve.let(len(batches))
    assert call.result(timeout=30).batches == len(batches)
    assert shim.watch(operation)[-1].HasField("succeeded")


def test_a_chunk_out_of_place_fails_stream_and_operation(shim, loss_work):
    operation = shim.start(evaluate_loss=loss_work)
    ids = np.zeros((2, 4), np.int64)
    messages = [
        operation_pb2.FeedRequest(feed_id=loss_work.feed_id, chunk=chunk("input_ids", ids, data=b"short")),
        operation_pb2.FeedRequest(batch_end=operation_pb2.BatchEnd()),
    ]
    with pytest.raises(grpc.RpcError) as caught:
        shim.feed_raw(messages)
    assert reason_of(detail_of(caught.value)) == "INVALID_REQUEST"
    last = shim.watch(operation)[-1]
    assert reason_of(last.failed) == "INVALID_REQUEST"
    assert "5 of 64 bytes" in last.failed.message


def test_bytes_that_are_no_message_fail_stream_and_operation(shim, loss_work):
    operation = shim.start(evaluate_loss=loss_work)
    sound = operation_pb2.FeedRequest(feed_id=loss_work.feed_id).SerializeToString()
    stub = shim.channel.stream_stream("/prunebridge.v1.FeedService/Feed")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(iter([sound, b"\x12\xff\xff\xff\x7f garbled"]), timeout=60))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert reason_of(shim.watch(operation)[-1].failed) == "FEED_LOST"


def test_answers_come_in_chunks(shim, model_id, rng):
    ids = rng.integers(0, 50, (16, 2000))
    work = work_pb2.Forward(model_id=model_id, feed_id=uuid.uuid4().hex)
    operation = shim.start(forward=work)
    call = shim.feed_in_background(work.feed_id, [Asking("LOGITS", input_ids=ids)])
    assert call.result(timeout=60).batches == 1
    assert shim.watch(operation)[-1].succeeded.forwarded.batches == 1
    assert call.answers[0]["logits"].shape == (16, 2000, 50)
    assert np.isfinite(call.answers[0]["logits"]).all()


def test_answers_come_in_order_and_only_where_asked_for(shim, model_id, rng):
    ids = token_ids(rng, batches=6)
    wanted = ["LOSS", "UNSPECIFIED", "LAST_LOGITS", "UNSPECIFIED", "LOGITS", "LOSS"]
    asks = [Asking(what, input_ids=one) for what, one in zip(wanted, ids, strict=True)]
    answers = {}
    for kind, work in {"forward": work_pb2.Forward, "collect": work_pb2.Collect}.items():
        request = work(model_id=model_id, feed_id=uuid.uuid4().hex)
        operation = shim.start(**{kind: request})
        call = shim.feed_in_background(request.feed_id, asks)
        assert call.result(timeout=30).batches == 6
        assert shim.watch(operation)[-1].HasField("succeeded")
        shapes = [(i, name, t.dtype.name, t.shape) for i, a in call.answers.items() for name, t in a.items()]
        assert shapes == [
            (0, "loss", "float64", ()),
            (2, "logits", "float32", (2, 50)),
            (4, "logits", "float32", (2, 9, 50)),
            (5, "loss", "float64", ()),
        ]
        answers[kind] = call.answers
    assert np.array_equal(answers["forward"][4]["logits"], answers["collect"][4]["logits"])


def test_an_answer_comes_before_the_next_batch_is_sent(shim, model_id, batches):
    work = work_pb2.Forward(model_id=model_id, feed_id=uuid.uuid4().hex)
    operation = shim.start(forward=work)
    valve = Valve([Asking("LOSS", **batch) for batch in batches[:2]])
    call = shim.feed_in_background(work.feed_id, valve)
    valve.let()
    wait_until(lambda: 0 in call.answers)
    assert valve.sent == 1
    valve.let()
    assert call.result(timeout=30).batches == 2
    assert shim.watch(operation)[-1].succeeded.forwarded.batches == 2


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("evaluate_loss", lambda model_id, **feed: work_pb2.EvaluateLoss(model_id=model_id, **feed)),
        ("slice", lambda model_id, **feed: work_pb2.Slice(**feed)),
    ],
)
def test_work_that_gives_no_answers_refuses_to_be_asked(shim, model_id, batches, kind, work):
    reason, message = shim.fail([Asking("LOSS", **batches[0])], **{kind: work(model_id)})
    assert (reason, "asks for loss" in message) == ("INVALID_REQUEST", True)


def test_what_cannot_be_asked_for(shim, model_id, batches):
    asking = Asking("LOSS", **batches[0])
    asking.returns = 77
    assert shim.fail([asking], forward=work_pb2.Forward(model_id=model_id))[0] == "INVALID_REQUEST"


def unread_feed(shim, model_id, rng, count=40):
    """A stream of which no answer is read: megabytes of logits for each batch."""
    work = work_pb2.Forward(model_id=model_id, feed_id=uuid.uuid4().hex)
    operation = shim.start(forward=work)
    asks = [Asking("LOGITS", input_ids=rng.integers(0, 50, (4000, 8))) for _ in range(count)]
    return operation, shim.feeds.Feed(feed_messages(work.feed_id, asks), timeout=60)


def progress_of(shim, operation):
    watch = shim.operations.Watch(operation_pb2.WatchRequest(operation_id=operation), timeout=4)
    done = 0
    with contextlib.suppress(grpc.RpcError):
        for event in watch:
            assert not event.HasField("succeeded"), "nobody read its answers"
            done = max(done, event.progress.done)
    return done


def test_answers_that_nobody_reads_hold_the_operation_back(shim, model_id, rng):
    operation, call = unread_feed(shim, model_id, rng)
    in_flight = 8  # answers of 6.4 MB in the window, in gRPC's buffers, and two that wait
    assert 0 < progress_of(shim, operation) < in_flight
    shim.cancel(operation)
    assert reason_of(shim.watch(operation)[-1].failed) == "CANCELLED"
    call.cancel()


def test_a_reader_of_answers_that_is_lost_fails_the_operation(shim, model_id, rng):
    for count in (4, 40):
        operation, call = unread_feed(shim, model_id, rng, count)
        time.sleep(0.5)
        call.cancel()
        assert reason_of(shim.watch(operation)[-1].failed) == "FEED_LOST"


def test_a_request_without_work(shim):
    with pytest.raises(grpc.RpcError, match="names no work"):
        shim.start()


def test_a_message_over_the_cap_is_refused_and_no_other_call(shim, loss_work, batches):
    with pytest.raises(grpc.RpcError) as caught:
        shim.start(open_model=work_pb2.OpenModel(path="x" * (MAX_MESSAGE_BYTES + 1)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    operation = shim.start(evaluate_loss=loss_work)
    shim.feed(loss_work.feed_id, batches)
    assert shim.watch(operation)[-1].HasField("succeeded")


def test_operations_run_one_after_the_other(shim, model_id, batches):
    feeds = [uuid.uuid4().hex for _ in range(3)]
    operations = [shim.start(evaluate_loss=work_pb2.EvaluateLoss(model_id=model_id, feed_id=feed)) for feed in feeds]
    threads = [threading.Thread(target=shim.feed, args=(feed, batches)) for feed in feeds]
    for thread in threads:
        thread.start()
    losses = {shim.watch(operation)[-1].succeeded.loss_evaluated.loss for operation in operations}
    for thread in threads:
        thread.join()
    assert len(losses) == 1


def health(shim, method, service):
    path = f"/grpc.health.v1.Health/{method}"
    make = shim.channel.unary_unary if method == "Check" else shim.channel.unary_stream
    call = make(path, request_serializer=Request.SerializeToString, response_deserializer=Response.FromString)
    return call(Request(service=service), timeout=20)


def test_health_is_answered_while_work_is_going_on(shim, loss_work, batches):
    operation = shim.start(evaluate_loss=loss_work)
    for service in ("", "prunebridge.v1.OperationService"):
        assert health(shim, "Check", service).status == SERVING
        watch = health(shim, "Watch", service)
        assert next(watch).status == SERVING
        watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        health(shim, "Check", "other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert next(health(shim, "Watch", "other")).status == SERVICE_UNKNOWN
    assert NOT_SERVING != SERVING
    shim.cancel(operation)


def test_health_leaves_the_default_pool_to_the_host():
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("grpc/health/v1/health.proto")
