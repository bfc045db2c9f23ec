"""Reaches an orchestrator from a job that takes no connections: rank 0 dials out and carries its own server's bytes.

Once connected it sends a line of JSON, `{"prunebridge_dial": 1, "token": ...}`, and takes one, `{"ok": true}` or
`{"error": ...}`. From there on the connection is one to the server, in which the orchestrator is the client.
"""

import asyncio
import json
import logging
import socket
import ssl
import threading
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError, text_of
from prunebridge_shim.rpc.addresses import Address

VERSION = 1
CONNECT_SECONDS = 10.0
ANSWER_BYTES = 4096
PIECE_BYTES = 256 << 10

PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds of silence before a connection is probed, seconds between probes, and unanswered ones that end it."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts: twice as long after each that fails. The first also when a connection ends."""

log = logging.getLogger(__name__)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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
    """Dials from a thread of its own until it is closed: one connection waits, those that were taken are carried."""

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
        # One thread reads and writes: what TLS keeps of a connection is not to be used by two.
        self._loop = asyncio.new_event_loop()
        self._carried: set[asyncio.Task[None]] = set()
        self._rests_until_s = 0.0
        self._dialled = self._loop.create_task(self._dial())
        self._thread = threading.Thread(target=self._run, name="prunebridge-dial", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hangs up. Safe to call twice."""
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._dialled.cancel)
        self._thread.join(CONNECT_SECONDS)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._dialled)
        self._loop.run_until_complete(_cancelled(self._carried))
        self._loop.close()

    async def _dial(self) -> None:
        pause_s = FIRST_PAUSE_SECONDS
        while True:
            try:
                self._carry(*await self._taken())
                log.info("dialled %s", self._dialing.address)
                pause_s = FIRST_PAUSE_SECONDS
                await asyncio.sleep(self._rests_until_s - self._loop.time())
                continue
            except (OSError, EOFError, asyncio.TimeoutError, ShimError) as error:
                log.warning("dialling %s: %s; again in %g s", self._dialing.address, text_of(error), pause_s)
            except Exception:
                # Otherwise the job would never be reached again.
                log.exception("a defect of the shim; dialling %s again in %g s", self._dialing.address, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_SECONDS)

    async def _taken(self) -> tuple[Stream, Stream]:
        """A connection that was taken, and one to the server."""
        with ExitStack() as failed:
            outside = await self._connect()
            failed.callback(outside[1].close)
            await self._introduce(*outside)
            inside = await asyncio.open_unix_connection(self._target)
            failed.pop_all()
        return outside, inside

    def _carry(self, outside: Stream, inside: Stream) -> None:
        """Begins to carry what goes between two connections, and closes them when that ends."""

        def end(carried: asyncio.Task[None]) -> None:
            self._carried.discard(carried)
            for _, writer in (outside, inside):
                writer.close()
            self._rests_until_s = self._loop.time() + FIRST_PAUSE_SECONDS

        carried = self._loop.create_task(_carry(outside, inside))
        self._carried.add(carried)
        carried.add_done_callback(end)

    async def _connect(self) -> Stream:
        address = self._dialing.address
        opening = asyncio.open_connection(address.host, address.port, ssl=self._context, limit=ANSWER_BYTES)
        reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
        _probe(writer.get_extra_info("socket"))
        return reader, writer

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Says who it is, and waits until it is taken."""
        writer.write(json.dumps({"prunebridge_dial": VERSION, "token": self._token}).encode() + b"\n")
        try:
            line = await reader.readuntil()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            message = "it is no orchestrator: it ended, or answered at length"
            raise ShimError(Reason.INVALID_REQUEST, message) from error
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            said = answer.get("error") if isinstance(answer, dict) else None
            raise ShimError(
                Reason.UNAUTHENTICATED, f"it refused: {str(said)[:200]}" if said else "it is no orchestrator"
            )


def _probe(connection: socket.socket) -> None:
    """A job may wait for days until it is taken, and is to know within a minute that the other end is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):  # not everywhere under this name
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _carry(one: Stream, other: Stream) -> None:
    """Carries bytes both ways until either end hangs up."""
    pumps = [asyncio.create_task(_pump(one[0], other[1])), asyncio.create_task(_pump(other[0], one[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled(pumps)


async def _cancelled(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE_BYTES):
        writer.write(data)
        await writer.drain()
