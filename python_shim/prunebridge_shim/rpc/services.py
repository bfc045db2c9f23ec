"""The services of the protocol."""

import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from prunebridge_shim import __version__
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, operation_pb2_grpc, session_pb2, session_pb2_grpc
from prunebridge_shim.rpc import capabilities, options
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.registry import Registry
from prunebridge_shim.rpc.translate import abort, to_shim_error
from prunebridge_shim.rpc.wire import BatchAssembler, chunks_of

BREAK_SECONDS = 0.02
"""A stream that breaks off can look like one that ended, until the news of its break is in."""

log = logging.getLogger(__name__)


def _unary(method: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a method raise any exception: the call fails with its detail."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 translated
            return abort(context, error)

    return call


def _streaming(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for a method that yields responses."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from method(self, request, context)
        except Exception as error:  # noqa: BLE001 translated
            abort(context, error)

    return call


class SessionService(session_pb2_grpc.SessionServiceServicer):
    """Tells what this shim is."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id

    @_unary
    def Handshake(self, request: session_pb2.HandshakeRequest, _context: Any) -> session_pb2.HandshakeResponse:  # noqa: N802
        """Agrees on a protocol version."""
        ours = options.PROTOCOL_VERSIONS
        protocol = min(request.protocol_max, ours[-1])
        if protocol < max(request.protocol_min, ours[0]):
            raise ShimError(
                Reason.PROTOCOL_MISMATCH,
                f"the client speaks protocol {request.protocol_min} to {request.protocol_max},"
                f" shim {__version__} speaks {ours[0]} to {ours[-1]}",
                "install matching versions of prunebridge and prunebridge-shim",
            )
        log.info("handshake with %s", request.client or "a client without a name")
        one = dict.fromkeys(("world_size", "tensor", "pipeline", "data", "context", "expert"), 1)
        return session_pb2.HandshakeResponse(
            protocol=protocol,
            version=__version__,
            boot_id=self._boot_id,
            capabilities=capabilities.capabilities(),
            devices=[
                session_pb2.Device(name=name, description=description, memory_bytes=memory)
                for name, description, memory in capabilities.devices()
            ],
            ranks=session_pb2.RankLayout(**one),
            limits=session_pb2.Limits(
                max_message_bytes=options.MAX_MESSAGE_BYTES,
                chunk_bytes=options.CHUNK_BYTES,
                feed_depth=options.FEED_DEPTH,
            ),
            libraries=capabilities.libraries(),
        )


class OperationService(operation_pb2_grpc.OperationServiceServicer):
    """Starts, watches and cancels operations, and hands out what they leave."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @_unary
    def Start(self, request: operation_pb2.StartRequest, _context: Any) -> operation_pb2.StartResponse:  # noqa: N802
        """Queues work."""
        kind = request.WhichOneof("work")
        if not request.request_id or kind is None:
            lacking = "no work" if request.request_id else "no request_id"
            raise ShimError(Reason.INVALID_REQUEST, f"the request to start names {lacking}")
        capabilities.require(kind)
        operation = self._registry.start(request.request_id, kind, getattr(request, kind))
        return operation_pb2.StartResponse(operation_id=operation.id)

    @_streaming
    def Watch(  # noqa: N802
        self, request: operation_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[operation_pb2.WatchResponse]:
        """Streams an operation's events."""
        operation = self._registry.get(request.operation_id)
        context.add_callback(operation.wake)
        yield from operation.follow(request.after_seq, context.is_active)

    @_unary
    def Cancel(self, request: operation_pb2.CancelRequest, _context: Any) -> operation_pb2.CancelResponse:  # noqa: N802
        """Asks an operation to end."""
        self._registry.get(request.operation_id).cancel()
        return operation_pb2.CancelResponse()

    @_streaming
    def ReadResult(  # noqa: N802
        self, request: operation_pb2.ReadResultRequest, _context: Any
    ) -> Iterator[operation_pb2.ReadResultResponse]:
        """Streams the tensors that an operation left."""
        for name, tensor in self._registry.get(request.operation_id).tensors().items():
            for chunk in chunks_of(name, tensor):
                yield operation_pb2.ReadResultResponse(chunk=chunk)


class FeedService(operation_pb2_grpc.FeedServiceServicer):
    """Takes batches for operations."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @_unary
    def Feed(  # noqa: N802
        self, requests: Iterator[operation_pb2.FeedRequest], context: grpc.ServicerContext
    ) -> operation_pb2.FeedResponse:
        """Takes batches until the operation has all of them, or has ended."""
        first = next(requests, None)
        feed = self._registry.feed(first.feed_id if first else "")
        feed.attach()
        # Reading cannot be interrupted but by the call's end: a thread reads, this one ends the call with the operation.
        everything = itertools.chain([first], requests)
        threading.Thread(target=_pump, args=(feed, everything, context), name="feed", daemon=True).start()
        return operation_pb2.FeedResponse(batches=feed.wait_until_taken())


def _pump(feed: Feed, requests: Iterator[operation_pb2.FeedRequest], context: grpc.ServicerContext) -> None:
    assembler = BatchAssembler()
    try:
        for request in requests:
            if request.feed_id not in {"", feed.id}:
                raise ShimError(Reason.INVALID_REQUEST, f"feed {feed.id!r} turns into {request.feed_id!r} midway")
            part = request.WhichOneof("part")
            if part == "chunk":
                assembler.add(request.chunk)
            elif part == "batch_end":
                feed.put(assembler.end_batch())
        time.sleep(BREAK_SECONDS)
        if not context.is_active():
            raise _sender_gone(feed)
        assembler.end_stream()
        feed.complete()
    except grpc.RpcError:
        feed.break_off(_sender_gone(feed))
    except Exception as error:  # noqa: BLE001 translated
        feed.break_off(to_shim_error(error))


def _sender_gone(feed: Feed) -> ShimError:
    return ShimError(
        Reason.FEED_LOST, f"the client broke off feed {feed.id!r} before its end", "start the operation again"
    )
