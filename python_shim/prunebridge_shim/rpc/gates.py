"""What a call passes before its request is read: its token, and the room that its method has."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import grpc

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.access import Access
from prunebridge_shim.rpc.first_requests import FirstRequests
from prunebridge_shim.rpc.limits import Allowance
from prunebridge_shim.rpc.options import (
    FAILED_TOKENS_AT_ONCE,
    FAILED_TOKENS_PER_SECOND,
    STREAMS_AT_A_TIME,
    UNARY_CALLS_AT_A_TIME,
)
from prunebridge_shim.rpc.translate import abort

Continuation = Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None]

HEALTH = "/grpc.health.v1.Health/"

log = logging.getLogger(__name__)


class TokenGate(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets in calls whose token is known, and questions of health."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._failures = Allowance(FAILED_TOKENS_PER_SECOND, FAILED_TOKENS_AT_ONCE)

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        """Gives the method's handler, or one that refuses without reading."""
        if details.method.startswith(HEALTH) or self._access.find(details.invocation_metadata) is not None:
            return continuation(details)
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    def _refuse(self, _requests: Any, context: grpc.ServicerContext) -> None:
        # A flood of guesses must not flood the log, too.
        if not self._failures.take():
            abort(context, ShimError(Reason.LIMIT_EXCEEDED, "too many calls without a token that this shim knows"))
        log.warning("a call without a known token from %s", context.peer())
        abort(
            context,
            ShimError(
                Reason.UNAUTHENTICATED,
                "this shim does not know the call's token",
                "give the token that the shim was started with: the content of its --token-file",
            ),
        )


class Turnstile(grpc.ServerInterceptor):  # type: ignore[misc]
    """Gives each method so many threads and no more: however many calls of one hang, the others are answered."""

    def __init__(self, streams: Mapping[str, int] = STREAMS_AT_A_TIME, unary: int = UNARY_CALLS_AT_A_TIME) -> None:
        self._rooms = {method: _Room(method, most) for method, most in streams.items()}
        self._unary = unary
        self._first_requests = FirstRequests()

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        """Gives a handler that takes its place, as long as there is one, and then waits for its request a while."""
        handler = continuation(details)
        if handler is None:
            return None
        room = self._rooms.setdefault(details.method, _Room(details.method, self._unary))
        return _through(room, self._first_requests, handler)


class _Room:
    """The places of one method."""

    def __init__(self, method: str, most: int) -> None:
        self._method = method
        self._most = most
        self._lock = Lock()
        self._inside = 0

    @contextmanager
    def place(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Takes a place; ends the call where there is none."""
        if not self._enter():
            message = f"{self._most} calls of {self._method} are open, which is the most"
            abort(context, ShimError(Reason.LIMIT_EXCEEDED, message, "close some, or wait for their end"))
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1

    def _enter(self) -> bool:
        with self._lock:
            free = self._inside < self._most
            self._inside += free
            return free


def _through(room: _Room, first: FirstRequests, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    run = handler.unary_unary or handler.unary_stream or handler.stream_stream
    take = _all if handler.request_streaming else _only

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with room.place(context):
            return run(take(first.wait(requests, context), context), context)

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        with room.place(context):
            yield from run(take(first.wait(requests, context), context), context)

    codec = {"request_deserializer": handler.request_deserializer, "response_serializer": handler.response_serializer}
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, **codec)
    return grpc.stream_unary_rpc_method_handler(answer, **codec)


def _all(requests: Iterator[Any], _context: grpc.ServicerContext) -> Iterator[Any]:
    return requests


def _only(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    request = next(requests, None)
    if request is None:
        abort(context, ShimError(Reason.INVALID_REQUEST, "the call has no request"))
    return request
