"""Unix sockets that nobody else can use."""

import os
import socket
import stat
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError

MAX_SOCKET_PATH_BYTES = 107
"""Linux's sun_path, less its closing zero."""


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
