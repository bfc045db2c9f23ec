"""A shim that another process started for itself."""

import logging
import os
import signal
import socket
import stat
import threading
from pathlib import Path

from prunebridge_shim import __version__
from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.lifeline import die_with_parent
from prunebridge_shim.rpc.options import PROTOCOL_VERSIONS
from prunebridge_shim.rpc.readiness import tell_failed, tell_ready
from prunebridge_shim.rpc.server import ShimServer
from prunebridge_shim.rpc.translate import to_shim_error

MAX_SOCKET_PATH_BYTES = 107
"""Linux's sun_path, less its closing zero."""

SIGNAL_SECONDS = 1.0
"""Between two looks for a signal that did not wake the main thread."""

log = logging.getLogger(__name__)


def serve(path: Path, ready_fd: int, parent_pid: int, entry_points: EntryPoints) -> int:
    """Serves a unix socket until a signal ends it; gives the exit status.

    Args:
        path: The socket, in a folder that is the user's own.
        ready_fd: Where the readiness line goes; it is closed after it.
        parent_pid: The process that this one ends with.
        entry_points: The Python functions that may be called by name.
    """
    ending = threading.Event()
    try:
        die_with_parent(parent_pid)
        check_socket(path)
        server = ShimServer(f"unix:{path}", entry_points)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ending.set())
        server.start()
    except Exception as error:  # noqa: BLE001 told to the parent
        tell_failed(ready_fd, to_shim_error(error))
        return 1
    tell_ready(
        ready_fd,
        address=server.address,
        boot_id=server.boot_id,
        pid=os.getpid(),
        version=__version__,
        protocol=PROTOCOL_VERSIONS[-1],
    )
    log.info("shim %s serves %s", __version__, server.address)
    # A signal that came while the process was stopped may reach a thread that does not wake this one.
    while not ending.wait(SIGNAL_SECONDS):
        pass
    log.info("shutting down")
    server.stop()
    path.unlink(missing_ok=True)
    return 0


def check_socket(path: Path) -> None:
    """Makes sure that nobody else can use a socket of this name; one that nobody listens on is removed.

    Raises:
        ShimError: PATH_NOT_FOUND, PATH_DENIED or INVALID_REQUEST.
    """
    if not path.parent.is_dir():
        raise ShimError(Reason.PATH_NOT_FOUND, f"the socket's folder {path.parent} does not exist")
    found = path.parent.stat()
    if found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise ShimError(
            Reason.PATH_DENIED,
            f"the socket's folder {path.parent} has mode {stat.S_IMODE(found.st_mode):o} and owner {found.st_uid}",
            f"others could reach the shim: it must have mode 700 and belong to user {os.geteuid()}",
        )
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"the socket's path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes",
            "set TMPDIR to a shorter one",
        )
    if path.exists():
        _remove_dead(path)


def _remove_dead(path: Path) -> None:
    if not path.is_socket():
        raise ShimError(Reason.INVALID_REQUEST, f"{path} exists and is no socket", "name another socket")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(os.fspath(path)) == 0:
            raise ShimError(Reason.INVALID_REQUEST, f"another process serves {path}", "name another socket")
    path.unlink()
