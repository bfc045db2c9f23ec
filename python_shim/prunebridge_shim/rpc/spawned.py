"""A shim that another process started for itself."""

from collections.abc import Sequence
from pathlib import Path

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.rpc.access import ALL_RIGHTS, Access
from prunebridge_shim.rpc.lifeline import die_with_parent
from prunebridge_shim.rpc.readiness import tell_failed
from prunebridge_shim.rpc.roots import Roots
from prunebridge_shim.rpc.server import Allowed, ShimServer
from prunebridge_shim.rpc.serving import Ending, raise_open_files
from prunebridge_shim.rpc.sockets import check_socket
from prunebridge_shim.rpc.tokens import read_token_line
from prunebridge_shim.rpc.translate import to_shim_error

STDIN = 0


def serve(path: Path, ready_fd: int, parent_pid: int, roots: Sequence[Path], entry_points: EntryPoints) -> int:
    """Serves a unix socket until a signal ends it; gives the exit status. The token comes from stdin.

    Args:
        path: The socket, in a folder that is the user's own.
        ready_fd: Where the readiness line goes; it is closed after it.
        parent_pid: The process that this one ends with.
        roots: The folders that requests may name paths in; without any, all that the user may use.
        entry_points: The Python functions that may be called by name.
    """
    try:
        raise_open_files()
        access = Access({read_token_line(STDIN): ALL_RIGHTS})
        die_with_parent(parent_pid)
        check_socket(path)
        address = f"unix:{path}"
        server = ShimServer(address, Allowed(access, Roots(roots), entry_points))
        ending = Ending()
        server.start()
    except Exception as error:  # noqa: BLE001 told to the parent
        tell_failed(ready_fd, to_shim_error(error))
        return 1
    ending.serve_until_then(server, address, ready_fd)
    path.unlink(missing_ok=True)
    return 0
