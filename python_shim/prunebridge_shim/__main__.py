"""The shim's command line: `python -m prunebridge_shim serve`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prunebridge_shim import __version__
from prunebridge_shim.entry_points import EntryPoints, allowed_name
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.readiness import tell_failed

LOG_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m prunebridge_shim", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    serve = parser.add_subparsers(required=True).add_parser("serve", help="serve the process that started this one")
    serve.add_argument("--socket", type=Path, required=True, help="unix socket to listen on, in a folder of mode 700")
    serve.add_argument("--ready-fd", type=int, required=True, help="descriptor that the readiness line is written to")
    serve.add_argument("--parent-pid", type=int, required=True, help="process to end with")
    serve.add_argument(
        "--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="default: INFO"
    )
    serve.add_argument(
        "--allow-python",
        action="append",
        default=[],
        type=allowed_name,
        metavar="NAME",
        help="package.module, for the functions that it defines, or package.module:function that may be called; "
        "may be given again; default: none",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives the exit status."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=args.log_level, format=LOG_FORMAT)
    try:
        import safetensors  # noqa: F401 transformers loads with it, long after the start

        from prunebridge_shim.rpc.spawned import serve
    except ImportError as error:
        tell_failed(args.ready_fd, missing_dependency(error))
        return 1
    return serve(args.socket, args.ready_fd, args.parent_pid, EntryPoints(args.allow_python))


def missing_dependency(error: ImportError) -> ShimError:
    """The error for an interpreter that lacks what the shim itself needs."""
    return ShimError(
        Reason.MISSING_DEPENDENCY,
        f"this interpreter cannot import {error.name or 'a package'}: {sys.executable} ({error})",
        "pip install prunebridge-shim, or name another interpreter with PRUNEBRIDGE_PYTHON",
    )


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Threads that still compute must not keep the process, nor crash on what the interpreter tears down under them.
    os._exit(status)
