"""A server with all services of the shim."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import grpc

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2_grpc, session_pb2_grpc
from prunebridge_shim.rpc.access import Access
from prunebridge_shim.rpc.chunks import chunk_methods
from prunebridge_shim.rpc.feed_service import FeedService
from prunebridge_shim.rpc.gates import TokenGate, Turnstile
from prunebridge_shim.rpc.health import Health
from prunebridge_shim.rpc.offers import Hosted, OwnModels
from prunebridge_shim.rpc.options import RPC_THREADS, SERVER_OPTIONS
from prunebridge_shim.rpc.registry import Registry
from prunebridge_shim.rpc.roots import Roots
from prunebridge_shim.rpc.services import OperationService, SessionService
from prunebridge_shim.rpc.worker import ShimWorker

CANCEL_SECONDS = 15.0
"""For running work to come to a batch's or a tensor's end. Clients kill after 30 s."""

GRACE_SECONDS = 2.0
"""For streams to tell their last event."""


@dataclass(frozen=True)
class Allowed:
    """What clients may do.

    Attributes:
        access: The tokens that are known, and their rights.
        roots: The folders that requests may name paths in.
        entry_points: The Python functions that may be called by name.
    """

    access: Access
    roots: Roots
    entry_points: EntryPoints


class ShimServer:
    """Serves one address until it is stopped."""

    def __init__(
        self,
        address: str,
        allowed: Allowed,
        credentials: grpc.ServerCredentials | None = None,
        hosted: Hosted | None = None,
    ) -> None:
        """Makes a server.

        Args:
            address: In gRPC's spelling, `unix:PATH` or `HOST:PORT`.
            allowed: What clients may do.
            credentials: What it proves itself with; without, the address is served as it is.
            hosted: The model of the job that the shim is a guest of; without, it opens models itself.
        """
        self.boot_id = str(uuid4())
        self._address = address
        self._credentials = credentials
        self.health = Health()
        offer = hosted or OwnModels()
        self.registry = Registry(ShimWorker(allowed.entry_points, allowed.roots, hosted), offer.lanes, offer.attended)
        self._server = grpc.server(
            ThreadPoolExecutor(RPC_THREADS, "rpc"),
            interceptors=(TokenGate(allowed.access), Turnstile()),
            options=SERVER_OPTIONS,
        )
        session = SessionService(self.boot_id, allowed.access, offer)
        operations = OperationService(self.registry, allowed.access, allowed.roots, offer)
        session_pb2_grpc.add_SessionServiceServicer_to_server(session, self._server)
        feeds = FeedService(self.registry)
        self._server.add_generic_rpc_handlers(chunk_methods(feeds.Feed, operations.ReadResult))
        operation_pb2_grpc.add_OperationServiceServicer_to_server(operations, self._server)
        self._server.add_generic_rpc_handlers((self.health.handler(),))

    def start(self) -> int:
        """Binds the address and begins to serve; gives the port, if there is one. Raises STORAGE_FAILED."""
        try:
            if self._credentials is None:
                bound = self._server.add_insecure_port(self._address)
            else:
                bound = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            raise ShimError(
                Reason.STORAGE_FAILED,
                f"cannot listen on {self._address}",
                "check that its folder can be written, or that the host is this machine and the port is free",
            )
        self._server.start()
        return int(bound)

    def stop(self) -> None:
        """Refuses new work, cancels what there is, and lets the streams tell before it ends."""
        self.health.stop_serving()
        self.registry.shut_down(CANCEL_SECONDS)
        self._server.stop(GRACE_SECONDS).wait()
