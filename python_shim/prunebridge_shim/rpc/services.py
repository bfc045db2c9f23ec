"""What a shim is, and its operations: two services of the protocol."""

import logging
from collections.abc import Iterator
from typing import Any

import grpc

from prunebridge_shim import __version__
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, operation_pb2_grpc, session_pb2, session_pb2_grpc
from prunebridge_shim.rpc import capabilities, options
from prunebridge_shim.rpc.calls import streaming, unary
from prunebridge_shim.rpc.registry import Registry
from prunebridge_shim.rpc.wire import responses_of

log = logging.getLogger(__name__)


class SessionService(session_pb2_grpc.SessionServiceServicer):
    """Tells what this shim is."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id

    @unary
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

    @unary
    def Start(self, request: operation_pb2.StartRequest, _context: Any) -> operation_pb2.StartResponse:  # noqa: N802
        """Queues work."""
        kind = request.WhichOneof("work")
        if not request.request_id or kind is None:
            lacking = "no work" if request.request_id else "no request_id"
            raise ShimError(Reason.INVALID_REQUEST, f"the request to start names {lacking}")
        capabilities.require(kind)
        operation = self._registry.start(request.request_id, kind, getattr(request, kind))
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
    def Cancel(self, request: operation_pb2.CancelRequest, _context: Any) -> operation_pb2.CancelResponse:  # noqa: N802
        """Asks an operation to end."""
        self._registry.get(request.operation_id).cancel()
        return operation_pb2.CancelResponse()

    @streaming
    def ReadResult(  # noqa: N802
        self, request: operation_pb2.ReadResultRequest, _context: Any
    ) -> Iterator[bytes]:
        """Streams the tensors that an operation left."""
        for name, tensor in self._registry.get(request.operation_id).tensors().items():
            yield from responses_of(name, tensor)
