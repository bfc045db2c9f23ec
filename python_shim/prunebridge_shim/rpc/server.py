"""A server with all services of the shim."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import grpc

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2_grpc, session_pb2_grpc
from prunebridge_shim.rpc.chunks import chunk_methods
from prunebridge_shim.rpc.feed_service import FeedService
from prunebridge_shim.rpc.health import Health
from prunebridge_shim.rpc.options import RPC_THREADS, SERVER_OPTIONS
from prunebridge_shim.rpc.registry import Registry
from prunebridge_shim.rpc.services import OperationService, SessionService
from prunebridge_shim.rpc.worker import ShimWorker

CANCEL_SECONDS = 15.0
"""For running work to come to a batch's or a tensor's end. Clients kill after 30 s."""

GRACE_SECONDS = 2.0
"""For streams to tell their last event."""


class ShimServer:
    """Serves one address until it is stopped."""

    def __init__(self, address: str, entry_points: EntryPoints) -> None:
        self.address = address
        self.boot_id = str(uuid4())
        self._health = Health()
        self._registry = Registry(ShimWorker(entry_points))
        self._server = grpc.server(ThreadPoolExecutor(RPC_THREADS, "rpc"), options=SERVER_OPTIONS)
        session_pb2_grpc.add_SessionServiceServicer_to_server(SessionService(self.boot_id), self._server)
        operations = OperationService(self._registry)
        feeds = FeedService(self._registry)
        self._server.add_generic_rpc_handlers(chunk_methods(feeds.Feed, operations.ReadResult))
        operation_pb2_grpc.add_OperationServiceServicer_to_server(operations, self._server)
        self._server.add_generic_rpc_handlers((self._health.handler(),))

    def start(self) -> None:
        """Binds the address and begins to serve; raises STORAGE_FAILED where that fails."""
        try:
            bound = self._server.add_insecure_port(self.address)
        except RuntimeError:
            bound = 0
        if not bound:
            raise ShimError(
                Reason.STORAGE_FAILED, f"cannot listen on {self.address}", "check that its folder can be written"
            )
        self._server.start()

    def stop(self) -> None:
        """Refuses new work, cancels what there is, and lets the streams tell before it ends."""
        self._health.stop_serving()
        self._registry.shut_down(CANCEL_SECONDS)
        self._server.stop(GRACE_SECONDS).wait()
