"""Feeds between a client that does its part and one that does not, and the operation that reads them."""

import threading

import numpy as np
import pytest

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc import feeds
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.options import ANSWER_DEPTH
from prunebridge_shim.tensors import HostTensor

BATCH = {"x": HostTensor("F32", np.zeros(1, np.float32))}


@pytest.fixture
def feed(monkeypatch):
    """A feed that was opened, of an operation that has begun, which waits for nobody long."""
    monkeypatch.setattr(feeds, "FEED_SILENCE_SECONDS", 0.2)
    feed = Feed("f")
    feed.attach()
    feed.begin()
    return feed


def lost(iterate):
    with pytest.raises(ShimError) as caught:
        iterate()
    assert caught.value.reason is Reason.FEED_LOST
    return caught.value.message


def test_a_sender_that_falls_silent_is_lost_to_the_operation_and_to_its_stream(feed):
    feed.put(BATCH, "nothing")
    asks = iter(feed)
    assert next(asks).batch is BATCH
    assert lost(lambda: next(asks)) == "the client of feed 'f' sent no whole batch for 0.2 s"
    assert "no whole batch" in lost(lambda: list(feed.answers()))


def test_a_client_that_takes_no_answer_is_lost(feed):
    answered = 0

    def answer_all():
        nonlocal answered
        for ask in feed:
            ask.answer(BATCH)
            answered += 1

    for _ in range(ANSWER_DEPTH + 1):
        feed.put(BATCH, "loss")
    assert lost(answer_all) == "the client of feed 'f' took no answer for 0.2 s"
    assert answered == ANSWER_DEPTH


def waiting(feed):
    """A thread that waits for the feed's operation to begin, and what it raised."""
    raised = []

    def wait():
        try:
            feed.await_reader()
        except ShimError as error:
            raised.append(error.reason)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    return thread, raised


@pytest.mark.parametrize(
    ("happen", "reasons"),
    [
        (Feed.begin, []),
        (Feed.close, [Reason.FEED_LOST]),
        (lambda feed: feed.hang_up(ShimError(Reason.FEED_LOST, "gone")), [Reason.FEED_LOST]),
    ],
    ids=["begins", "ends before", "client leaves"],
)
def test_a_sender_waits_until_the_operation_begins(happen, reasons):
    feed = Feed("f")
    thread, raised = waiting(feed)
    happen(feed)
    thread.join(10)
    assert not thread.is_alive()
    assert raised == reasons
