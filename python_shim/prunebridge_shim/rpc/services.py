"""What a shim is, and its operations: two services of the protocol."""

import logging
from collections.abc import Iterator
from typing import Any

import grpc

from prunebridge_shim import __version__
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, operation_pb2_grpc, session_pb2, session_pb2_grpc
from prunebridge_shim.rpc import capabilities, options
from prunebridge_shim.rpc.access import Access
from prunebridge_shim.rpc.calls import streaming, unary
from prunebridge_shim.rpc.offers import Offer
from prunebridge_shim.rpc.registry import Registry
from prunebridge_shim.rpc.roots import Roots
from prunebridge_shim.rpc.wire import responses_of

CLIENT_CHARACTERS = 100
"""Of a client's name, for the log."""

log = logging.getLogger(__name__)


class SessionService(session_pb2_grpc.SessionServiceServicer):
    """Tells what this shim is."""

    def __init__(self, boot_id: str, access: Access, offer: Offer) -> None:
        self._boot_id = boot_id
        self._access = access
        self._offer = offer

    @unary
    def Handshake(  # noqa: N802
        self, request: session_pb2.HandshakeRequest, context: grpc.ServicerContext
    ) -> session_pb2.HandshakeResponse:
        """Agrees on a protocol version."""
        grant = self._access.of_call(context.invocation_metadata())
        ours = options.PROTOCOL_VERSIONS
        protocol = min(request.protocol_max, ours[-1])
        if protocol < max(request.protocol_min, ours[0]):
            raise ShimError(
                Reason.PROTOCOL_MISMATCH,
                f"the client speaks protocol {request.protocol_min} to {request.protocol_max},"
                f" shim {__version__} speaks {ours[0]} to {ours[-1]}",
                "install matching versions of prunebridge and prunebridge-shim",
            )
        log.info("handshake with %r", request.client[:CLIENT_CHARACTERS])
        return session_pb2.HandshakeResponse(
            protocol=protocol,
            version=__version__,
            boot_id=self._boot_id,
            capabilities=self._offer.kinds(),
            devices=self._offer.devices(),
            ranks=self._offer.ranks(),
            attached=self._offer.attached(),
            limits=session_pb2.Limits(
                max_message_bytes=options.MAX_MESSAGE_BYTES,
                chunk_bytes=options.CHUNK_BYTES,
                feed_depth=options.FEED_DEPTH,
                max_batch_bytes=options.MAX_BATCH_BYTES,
                max_operations=options.MAX_OPERATIONS,
                starts_per_second=options.STARTS_PER_SECOND,
            ),
            libraries=capabilities.libraries(),
            rights=[f"RIGHT_{right.name}" for right in grant.rights],
        )


class OperationService(operation_pb2_grpc.OperationServiceServicer):
    """Starts, watches and cancels operations, and hands out what they leave."""

    def __init__(self, registry: Registry, access: Access, roots: Roots, offer: Offer) -> None:
        self._registry = registry
        self._access = access
        self._roots = roots
        self._offer = offer

    @unary
    def Start(  # noqa: N802
        self, request: operation_pb2.StartRequest, context: grpc.ServicerContext
    ) -> operation_pb2.StartResponse:
        """Queues work."""
        grant = self._access.of_call(context.invocation_metadata())
        kind = request.WhichOneof("work")
        if not request.request_id or kind is None:
            lacking = "no work" if request.request_id else "no request_id"
            raise ShimError(Reason.INVALID_REQUEST, f"the request to start names {lacking}")
        work = getattr(request, kind)
        grant.check(kind, work)
        if not grant.starts.take():
            raise ShimError(
                Reason.LIMIT_EXCEEDED,
                f"more than {options.STARTS_PER_SECOND} operations were started in a second",
                "start them more slowly",
            )
        self._offer.check(kind, work)
        self._roots.confine(kind, work)
        operation = self._registry.start(request.request_id, kind, work)
        return operation_pb2.StartResponse(operation_id=operation.id)

    @streaming
    def Watch(  # noqa: N802
        self, request: operation_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[operation_pb2.WatchResponse]:
        """Streams an operation's events."""
        operation = self._registry.get(request.operation_id)
        context.add_callback(operation.wake)
        yield from operation.follow(request.after_seq, context.is_active)

    @unary
    def Cancel(  # noqa: N802
        self, request: operation_pb2.CancelRequest, context: grpc.ServicerContext
    ) -> operation_pb2.CancelResponse:
        """Asks an operation to end."""
        operation = self._registry.get(request.operation_id)
        self._access.of_call(context.invocation_metadata()).check(operation.kind)
        operation.cancel()
        return operation_pb2.CancelResponse()

    @streaming
    def ReadResult(  # noqa: N802
        self, request: operation_pb2.ReadResultRequest, _context: Any
    ) -> Iterator[bytes]:
        """Streams the tensors that an operation left."""
        for name, tensor in self._registry.get(request.operation_id).tensors().items():
            yield from responses_of(name, tensor)
