"""Starts the ranks of a job on this machine by torchrun, for a process that they end with. Imports torch."""

import os
import signal
from collections.abc import Sequence

from prunebridge_shim.rpc.lifeline import end_with_parent
from prunebridge_shim.rpc.readiness import tell_ranks_failed

STDOUT = 1

RANKS_OF = "PRUNEBRIDGE_RANKS_OF"
"""The process that ranks end with, in their environment."""


def launch(parent_pid: int, ranks: int, command: Sequence[str]) -> int:
    """Runs `python -m prunebridge_shim COMMAND` as each rank, until all have ended; gives the exit status.

    Where ranks failed, a line of JSON on stdout says which and how, the first one first: torchrun ends all others with
    it.

    Args:
        parent_pid: The process that this one ends with.
        ranks: How many.
        command: The shim's own arguments.
    """
    end_with_parent(parent_pid, signal.SIGTERM)
    from torch.distributed.elastic.multiprocessing.api import SignalException

    os.environ[RANKS_OF] = str(os.getpid())
    try:
        return _run_ranks(["--standalone", f"--nproc-per-node={ranks}", "-m", "prunebridge_shim", *command])
    except SignalException:
        # It was asked to end, and has ended all ranks; that may also come while it deals with those that failed.
        return 0


def _run_ranks(flags: Sequence[str]) -> int:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(flags))
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
        tell_ranks_failed(os.dup(STDOUT), [(rank, failure.exitcode) for rank, failure in failures])
        return 1
    return 0


def end_with_launcher() -> None:
    """Has a rank end with the process that started it, where `launch` did; raises INVALID_REQUEST where that ended."""
    launcher = os.environ.get(RANKS_OF)
    if launcher is not None:
        end_with_parent(int(launcher), signal.SIGKILL)
