"""Ties this process to its parent: it ends when the parent does, in two ways."""

import ctypes
import os
import signal
import sys
import threading

from prunebridge_shim.errors import Reason, ShimError

PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ends this process with its parent, by the kernel's signal and by the end of stdin.

    The signal comes through where a computation holds the interpreter; the end of stdin, where the kernel has no such
    signal.

    Raises:
        ShimError: INVALID_REQUEST where the parent is another, or has died before the signal was asked for.
    """
    end_with_parent(parent_pid, signal.SIGKILL)
    threading.Thread(target=_exit_at_end_of_stdin, name="lifeline", daemon=True).start()


def end_with_parent(parent_pid: int, by: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent dies; raises as `die_with_parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"the parent of this process is {os.getppid()} and not {parent_pid}",
            "name the interpreter itself, not a wrapper that stays in between",
        )


def _exit_at_end_of_stdin() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os._exit(0)
