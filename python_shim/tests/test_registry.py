"""Operations that queue, run and end, without a server."""

import threading
import uuid

import pytest

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, work_pb2
from prunebridge_shim.rpc import feeds
from prunebridge_shim.rpc.options import MAX_OPERATIONS
from prunebridge_shim.rpc.registry import ENDED_KEPT, Registry


class HeldWorker:
    """Runs each operation once a test lets it, after all batches of its feed, if it has one."""

    def __init__(self):
        self.let = threading.Event()

    def run(self, operation):
        if operation.kind == "close_model":
            assert self.let.wait(60)
        else:
            list(operation.feed)
        operation.succeed(operation_pb2.Succeeded(), {})


@pytest.fixture
def worker():
    worker = HeldWorker()
    yield worker
    worker.let.set()


@pytest.fixture
def registry(worker):
    return Registry(worker)


def start(registry):
    return registry.start(uuid.uuid4().hex, "close_model", work_pb2.CloseModel())


def refused(call):
    with pytest.raises(ShimError) as caught:
        call()
    return caught.value


def test_what_was_cancelled_while_it_waited_counts_no_more(registry, worker):
    running = start(registry)
    queued = [start(registry) for _ in range(MAX_OPERATIONS - 1)]
    assert refused(lambda: start(registry)).reason is Reason.LIMIT_EXCEEDED
    for operation in queued:
        operation.cancel()
    queued = [start(registry) for _ in range(MAX_OPERATIONS - 1)]
    assert refused(lambda: start(registry)).reason is Reason.LIMIT_EXCEEDED
    assert not running.ended
    worker.let.set()
    assert all(operation.wait(30) for operation in (running, *queued))


def test_what_was_cancelled_is_forgotten_though_its_lane_is_held_up(registry, worker):
    running = start(registry)
    first = start(registry)
    first.cancel()
    for _ in range(ENDED_KEPT + 1):
        start(registry).cancel()
    start(registry)
    assert refused(lambda: registry.get(first.id)).reason is Reason.UNKNOWN_OPERATION
    last = start(registry)
    worker.let.set()
    assert running.wait(30)
    assert last.wait(30)


def test_a_request_id_is_of_one_kind_of_work(registry):
    work = work_pb2.CloseModel()
    operation = registry.start("once", "close_model", work)
    assert registry.start("once", "close_model", work) is operation
    error = refused(lambda: registry.start("once", "open_model", work_pb2.OpenModel()))
    assert error.reason is Reason.INVALID_REQUEST
    assert "'once' belongs to a close_model" in error.message


def test_a_silent_feed_gives_its_lane_back(registry, monkeypatch):
    monkeypatch.setattr(feeds, "FEED_SILENCE_SECONDS", 0.2)
    silent, next_ = (
        registry.start(feed_id, "evaluate_loss", work_pb2.EvaluateLoss(feed_id=feed_id)) for feed_id in ("s", "n")
    )
    registry.feed("s").attach()
    registry.feed("n").attach()
    registry.feed("n").complete()
    assert next_.wait(30)
    (last,) = silent.follow(0, lambda: True)
    assert operation_pb2.WatchResponse(seq=1, failed=last.failed) == last
    assert "no whole batch" in last.failed.message


def test_slicing_and_tokenizing_wait_for_no_other_kind(registry):
    for kind, work in (
        ("evaluate_loss", work_pb2.EvaluateLoss),
        ("slice", work_pb2.Slice),
        ("tokenize", work_pb2.Tokenize),
    ):
        registry.start(f"blocked {kind}", kind, work(feed_id=f"blocked {kind}"))
        blocked = registry.feed(f"blocked {kind}")
        blocked.attach()
        thread = threading.Thread(target=blocked.await_reader, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), f"{kind} has not begun"
