"""Reaches an orchestrator from a job that takes no connections: rank 0 dials out and carries its own server's bytes.

Once connected it sends a line of JSON, `{"prunebridge_dial": 1, "token": ...}`, and takes one, `{"ok": true}` or
`{"error": ...}`. From there on the connection is one to the server, in which the orchestrator is the client.
"""

import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError, text_of
from prunebridge_shim.rpc.addresses import Address

VERSION = 1
CONNECT_SECONDS = 10.0
ANSWER_BYTES = 4096
PIECE_BYTES = 256 << 10

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts: twice as long after each that fails."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dialing:
    """Where to dial.

    Attributes:
        address: A host and a port.
        ca: The authorities that the certificate found there has to be by; without, the system's.
    """

    address: Address
    ca: Path | None

    @classmethod
    def parse(cls, text: str, ca: Path | None) -> "Dialing":
        """Reads `HOST:PORT`; raises INVALID_REQUEST."""
        address = Address.parse(text)
        if address.path is not None or address.port == 0:
            raise ShimError(Reason.INVALID_REQUEST, f"{text!r} is no address to dial", "write HOST:PORT")
        return cls(address, ca)

    def context(self) -> ssl.SSLContext | None:
        """What proves the other end; nothing where it is this machine. Raises INVALID_REQUEST."""
        if self.address.is_local:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise ShimError(
                Reason.INVALID_REQUEST, f"cannot use {self.ca}: {error}", "give a PEM file of authorities"
            ) from error


class Dialer:
    """Dials from a thread of its own, and again whenever a connection ends, until it is closed."""

    def __init__(self, dialing: Dialing, token: str, target: Path) -> None:
        """Begins to dial.

        Args:
            dialing: Where to.
            token: The secret that both ends know.
            target: The unix socket of the server whose bytes are carried.
        """
        self._dialing = dialing
        self._context = dialing.context()
        self._token = token
        self._target = target
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, name="prunebridge-dial", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hangs up."""
        self._closed.set()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join(CONNECT_SECONDS)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_SECONDS
        while not self._closed.wait(pause_s):
            pause_s = min(2 * pause_s, LONGEST_PAUSE_SECONDS)
            try:
                with self._connected() as (outside, inside):
                    log.info("dialled %s", self._dialing.address)
                    pause_s = FIRST_PAUSE_SECONDS
                    carry(outside, inside)
            except (OSError, ShimError) as error:
                log.warning("dialling %s: %s; again in %g s", self._dialing.address, text_of(error), pause_s)

    @contextmanager
    def _connected(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        address = self._dialing.address
        with socket.create_connection((address.host, address.port), CONNECT_SECONDS) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outside = plain
            if self._context is not None:
                outside = self._context.wrap_socket(plain, server_hostname=address.host)
            with outside, socket.socket(socket.AF_UNIX) as inside:
                self._introduce(outside)
                inside.connect(str(self._target))
                outside.settimeout(None)
                self._open = {outside, inside}
                try:
                    yield outside, inside
                finally:
                    self._open = set()

    def _introduce(self, outside: socket.socket) -> None:
        outside.sendall(json.dumps({"prunebridge_dial": VERSION, "token": self._token}).encode() + b"\n")
        line = b""
        # A byte at a time: what follows the line is the server's.
        while not line.endswith(b"\n"):
            byte = outside.recv(1)
            line += byte
            if not byte or len(line) > ANSWER_BYTES:
                raise ShimError(Reason.INVALID_REQUEST, "it is no orchestrator: it ended, or answered at length")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            said = answer.get("error") if isinstance(answer, dict) else None
            raise ShimError(
                Reason.UNAUTHENTICATED, f"it refused: {str(said)[:200]}" if said else "it is no orchestrator"
            )


def carry(outside: socket.socket, inside: socket.socket) -> None:
    """Carries bytes both ways until either end hangs up."""
    back = threading.Thread(target=_pump, args=(inside, outside), name="prunebridge-dial-back", daemon=True)
    back.start()
    _pump(outside, inside)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    with suppress(OSError):
        while count := source.recv_into(buffer):
            sink.sendall(buffer[:count])
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
