"""A shim that lives by itself, and that clients attach to."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc import capabilities
from prunebridge_shim.rpc.access import ALL_RIGHTS, READ_ONLY, Access
from prunebridge_shim.rpc.addresses import Address
from prunebridge_shim.rpc.offers import Hosted
from prunebridge_shim.rpc.readiness import tell_failed
from prunebridge_shim.rpc.roots import Roots
from prunebridge_shim.rpc.server import Allowed, ShimServer
from prunebridge_shim.rpc.serving import Ending, raise_open_files
from prunebridge_shim.rpc.sockets import check_socket
from prunebridge_shim.rpc.tls import TlsFiles
from prunebridge_shim.rpc.tokens import read_token_file
from prunebridge_shim.rpc.translate import to_shim_error

STDOUT = 1


@dataclass(frozen=True)
class Listening:
    """How to listen.

    Attributes:
        address: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
        token_file: The token that gives all rights.
        read_token_file: One that gives the right to read.
        tls: What the shim proves itself with; needed where other machines reach the address.
        roots: The folders that requests may name paths in.
        entry_points: The Python functions that may be called by name.
        hosted: The model of the job that the shim is a guest of.
    """

    address: str
    token_file: Path
    read_token_file: Path | None
    tls: TlsFiles | None
    roots: Sequence[Path]
    entry_points: EntryPoints
    hosted: Hosted | None = None


def listen(options: Listening) -> int:
    """Serves an address until a signal ends it; gives the exit status. The readiness line goes to stdout."""
    ready_fd = os.dup(STDOUT)
    try:
        raise_open_files()
        server, address = start_listening(options)
        ending = Ending()
        # A handshake must not wait for an import of torch.
        capabilities.devices()
    except Exception as error:  # noqa: BLE001 told to whoever reads stdout
        tell_failed(ready_fd, to_shim_error(error))
        return 1
    ending.serve_until_then(server, str(address), ready_fd)
    if address.path is not None:
        address.path.unlink(missing_ok=True)
    return 0


def start_listening(options: Listening) -> tuple[ShimServer, Address]:
    """Starts a server; gives it and the address with the port that it has.

    Raises:
        ShimError: PATH_DENIED or INVALID_REQUEST for what is not safe, STORAGE_FAILED where the address is taken.
        OSError: a file cannot be read.
    """
    address = Address.parse(options.address)
    if not address.is_local and options.tls is None:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{address} can be reached from other machines, and tokens would go to it in the clear",
            "give --tls-cert and --tls-key, or listen on 127.0.0.1 or a unix socket",
        )
    if address.path is not None:
        if options.tls is not None:
            raise ShimError(Reason.INVALID_REQUEST, f"{address} takes no TLS", "leave out --tls-cert and --tls-key")
        check_socket(address.path)
    allowed = Allowed(_access(options), Roots(options.roots), options.entry_points)
    credentials = None if options.tls is None else options.tls.credentials()
    server = ShimServer(str(address), allowed, credentials, options.hosted)
    return server, address.at(server.start())


def _access(options: Listening) -> Access:
    tokens = {read_token_file(options.token_file): ALL_RIGHTS}
    if options.read_token_file is not None:
        reading = read_token_file(options.read_token_file)
        if reading in tokens:
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"{options.token_file} and {options.read_token_file} have the same token",
                "the right to read needs a token of its own",
            )
        tokens[reading] = READ_ONLY
    return Access(tokens)
