"""Batches on their way in and what they give back: the third service of the protocol."""

import itertools
import threading
from collections.abc import Iterator, Mapping

import grpc

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, operation_pb2_grpc
from prunebridge_shim.rpc.calls import streaming
from prunebridge_shim.rpc.chunks import FeedPart
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.registry import Registry
from prunebridge_shim.rpc.translate import to_shim_error
from prunebridge_shim.rpc.wire import BatchAssembler, responses_of
from prunebridge_shim.tensors import Returns

RETURNS: Mapping[int, Returns] = {
    operation_pb2.RETURNS_UNSPECIFIED: "nothing",
    operation_pb2.RETURNS_LOSS: "loss",
    operation_pb2.RETURNS_LAST_LOGITS: "last_logits",
    operation_pb2.RETURNS_LOGITS: "logits",
    operation_pb2.RETURNS_OUTPUT: "output",
}


class FeedService(operation_pb2_grpc.FeedServiceServicer):
    """Takes batches for operations and gives out their answers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @streaming
    def Feed(  # noqa: N802
        self, parts: Iterator[FeedPart], context: grpc.ServicerContext
    ) -> Iterator[operation_pb2.FeedResponse | bytes]:
        """Takes batches until the operation has all of them, or has ended."""
        first = next(parts, None)
        feed = self._registry.feed(first.request.feed_id if first else "")
        feed.attach()
        context.add_callback(lambda: feed.hang_up(_sender_gone(feed)))
        # Only the end of the call interrupts reading: a thread reads, this one answers and ends the call with the
        # operation.
        everything = itertools.chain([first], parts)
        threading.Thread(target=_pump, args=(feed, everything), name="feed", daemon=True).start()
        for number, answer in feed.answers():
            for name, tensor in answer.items():
                yield from responses_of(name, tensor)
            yield operation_pb2.FeedResponse(answer_end=operation_pb2.AnswerEnd(batch=number))
        yield operation_pb2.FeedResponse(feed_taken=operation_pb2.FeedTaken(batches=feed.taken))


def _pump(feed: Feed, parts: Iterator[FeedPart]) -> None:
    assembler = BatchAssembler()
    sent, stated = 0, None
    try:
        feed.await_reader()
        for request, data in parts:
            if request.feed_id not in {"", feed.id}:
                raise ShimError(Reason.INVALID_REQUEST, f"feed {feed.id!r} turns into {request.feed_id!r} midway")
            part = request.WhichOneof("part")
            if part == "chunk":
                assembler.add(request.chunk, data)
            elif part == "batch_end":
                feed.put(assembler.end_batch(), _returns_of(request.batch_end, sent))
                sent += 1
            elif part == "feed_end":
                stated = request.feed_end.batches
        # A stream that breaks off can look like one that ended: only the sender's own word is believed.
        if stated is None:
            raise _sender_gone(feed)
        assembler.end_stream()
        if stated != sent:
            raise ShimError(Reason.INVALID_REQUEST, f"feed {feed.id!r} brought {sent} batches and states {stated}")
        feed.complete()
    except grpc.RpcError:
        feed.break_off(_sender_gone(feed))
    except Exception as error:  # noqa: BLE001 translated
        feed.break_off(to_shim_error(error))


def _returns_of(end: operation_pb2.BatchEnd, number: int) -> Returns:
    if end.returns not in RETURNS:
        raise ShimError(Reason.INVALID_REQUEST, f"batch {number} asks for {end.returns}, which is no member of Returns")
    return RETURNS[end.returns]


def _sender_gone(feed: Feed) -> ShimError:
    return ShimError(
        Reason.FEED_LOST, f"the client broke off feed {feed.id!r} before its end", "start the operation again"
    )
