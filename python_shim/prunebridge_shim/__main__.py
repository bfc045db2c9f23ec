"""The shim's command line: `python -m prunebridge_shim serve`, `listen`, and `megatron` under torchrun."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunebridge_shim import __version__
from prunebridge_shim.entry_points import EntryPoints, allowed_name
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.hosting.flags import add_hosting_flags, sizes_of
from prunebridge_shim.rpc.readiness import tell_failed

if TYPE_CHECKING:
    from prunebridge_shim.rpc.tls import TlsFiles

LOG_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m prunebridge_shim", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)
    logged = _log_flags()
    shared = _shared_flags(logged)
    serve = commands.add_parser(
        "serve",
        parents=[shared],
        help="serve the process that started this one",
        description="Serve the process that started this one, which writes a token as the first line of stdin.",
    )
    serve.add_argument("--socket", type=Path, required=True, help="unix socket to listen on, in a folder of mode 700")
    serve.add_argument("--ready-fd", type=int, required=True, help="descriptor that the readiness line is written to")
    serve.add_argument("--parent-pid", type=int, required=True, help="process to end with")
    serve.add_argument("--root", action="append", default=[], type=Path, metavar="DIR", help=ROOT_HELP)
    serve.set_defaults(run=_serve)
    listen = commands.add_parser(
        "listen",
        parents=[shared],
        help="serve clients that attach",
        description="Serve clients that attach, until SIGTERM. A line of JSON on stdout says where, once it is ready.",
    )
    listen.add_argument(
        "--address", required=True, help="HOST:PORT, [IPV6]:PORT or unix:PATH; port 0: any that is free"
    )
    _add_entrance_flags(listen)
    listen.set_defaults(run=_listen)
    megatron = commands.add_parser(
        "megatron",
        parents=[logged],
        help="hold a Megatron checkpoint on the ranks of a job, and serve clients that attach",
        description="Be one rank of a job that holds a Megatron checkpoint: start as many with torchrun. Rank 0 serves"
        " clients until SIGTERM; a line of JSON on its stdout says where, once it is ready.",
    )
    add_hosting_flags(megatron)
    _add_entrance_flags(megatron)
    megatron.set_defaults(run=_megatron)
    launch = commands.add_parser(
        "launch",
        help="start the ranks of a job on this machine, for the process that started this one",
        description="Start the ranks of a job on this machine by torchrun, for the process that started this one.",
    )
    launch.add_argument("--parent-pid", type=int, required=True, help="process to end with")
    launch.add_argument("--nproc-per-node", type=int, required=True, help="how many ranks")
    launch.add_argument("command", nargs=argparse.REMAINDER, help="the command that each rank runs, and its flags")
    launch.set_defaults(run=_launch, log_level="INFO")
    return parser


ROOT_HELP = "a folder that requests may name paths in; may be given again; symlinks must not lead out of it"


def _log_flags() -> argparse.ArgumentParser:
    logged = argparse.ArgumentParser(add_help=False)
    logged.add_argument(
        "--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="default: INFO"
    )
    return logged


def _shared_flags(logged: argparse.ArgumentParser) -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False, parents=[logged])
    shared.add_argument(
        "--allow-python",
        action="append",
        default=[],
        type=allowed_name,
        metavar="NAME",
        help="package.module, for the functions that it defines, package.module:function, or a folder of modules "
        "(/..., ./... or ../...) that may be called; may be given again; default: none",
    )
    return shared


def _add_entrance_flags(listen: argparse.ArgumentParser) -> None:
    listen.add_argument("--root", action="append", required=True, type=Path, metavar="DIR", help=ROOT_HELP)
    for flag, required, text in (
        ("--token-file", True, "the token that gives all rights, in a file of mode 600"),
        ("--read-token-file", False, "a token that gives the right to look and to measure"),
        ("--tls-cert", False, "the shim's certificate chain; needed where other machines reach the address"),
        ("--tls-key", False, "its key"),
        ("--tls-client-ca", False, "let in only clients with a certificate by these authorities"),
    ):
        listen.add_argument(flag, type=Path, required=required, metavar="FILE", help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=args.log_level, format=LOG_FORMAT)
    status: int = args.run(parser, args)
    return status


def _serve(_parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    try:
        import safetensors  # noqa: F401 transformers loads with it, long after the start

        from prunebridge_shim.rpc.spawned import serve
    except ImportError as error:
        tell_failed(args.ready_fd, missing_dependency(error))
        return 1
    return serve(args.socket, args.ready_fd, args.parent_pid, args.root, EntryPoints(args.allow_python))


def _listen(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    _check_tls_flags(parser, args)
    try:
        import safetensors  # noqa: F401 as above

        from prunebridge_shim.rpc.listening import Listening, listen
    except ImportError as error:
        tell_failed(os.dup(sys.stdout.fileno()), missing_dependency(error))
        return 1
    return listen(
        Listening(
            address=args.address,
            token_file=args.token_file,
            read_token_file=args.read_token_file,
            tls=_tls_files(args),
            roots=args.root,
            entry_points=EntryPoints(args.allow_python),
        )
    )


def _megatron(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    _check_tls_flags(parser, args)
    try:
        from prunebridge_shim.hosting.run import Hosting, run
        from prunebridge_shim.hosting.sizes import Sizes
        from prunebridge_shim.rpc.dialing import Dialing
        from prunebridge_shim.rpc.reception import Entrance
    except ImportError as error:
        tell_failed(os.dup(sys.stdout.fileno()), missing_dependency(error))
        return 1
    try:
        dialing = None if args.dial is None else Dialing.parse(args.dial, args.dial_ca)
        entrance = Entrance(
            args.listen, dialing, args.token_file, args.read_token_file, _tls_files(args), tuple(args.root)
        )
    except ShimError as error:
        parser.error(f"{error.message}: {error.hint}")
    sizes = Sizes(**sizes_of(args), sequence_parallel=args.sequence_parallel)
    return run(Hosting(args.checkpoint, sizes, args.dtype, args.device, entrance, args.deadline, args.wait))


def _check_tls_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if (args.tls_cert is None) != (args.tls_key is None):
        parser.error("--tls-cert and --tls-key go together")
    if args.tls_client_ca is not None and args.tls_cert is None:
        parser.error("--tls-client-ca needs --tls-cert and --tls-key")


def _tls_files(args: argparse.Namespace) -> "TlsFiles | None":
    from prunebridge_shim.rpc.tls import TlsFiles

    return None if args.tls_cert is None else TlsFiles(args.tls_cert, args.tls_key, args.tls_client_ca)


def _launch(_parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from prunebridge_shim.rpc.launching import launch

    try:
        return launch(args.parent_pid, args.nproc_per_node, args.command)
    except ImportError as error:
        tell_failed(os.dup(sys.stdout.fileno()), missing_dependency(error))
        return 1


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
