"""A shim that is a process of its own, from its readiness line to the signal that ends it."""

import contextlib
import logging
import os
import resource
import signal
import threading

from prunebridge_shim import __version__
from prunebridge_shim.rpc.options import PROTOCOL_VERSIONS
from prunebridge_shim.rpc.readiness import tell_ready
from prunebridge_shim.rpc.server import ShimServer

SIGNAL_SECONDS = 1.0
"""Between two looks for a signal that did not wake the main thread."""

log = logging.getLogger(__name__)


def raise_open_files() -> None:
    """Lets this process open as many files as the user may: a parent that many ranks saved lies in thousands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no limit for the user, some systems still have one for a process.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Ending:
    """The signal that asks the process to end, SIGTERM or SIGINT; heard from the moment this is made."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._asked.set())

    def serve_until_then(self, server: ShimServer, address: str, ready_fd: int) -> None:
        """Says where a server that was started can be reached, waits, and stops it."""
        tell_ready(
            ready_fd,
            address=address,
            boot_id=server.boot_id,
            pid=os.getpid(),
            version=__version__,
            protocol=PROTOCOL_VERSIONS[-1],
        )
        log.info("shim %s serves %s", __version__, address)
        # A signal that came while the process was stopped may reach a thread that does not wake this one.
        while not self._asked.wait(SIGNAL_SECONDS):
            pass
        log.info("shutting down")
        server.stop()
