"""Tokens, on their way in. No message has one in it."""

import os
import re
import select
import stat
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError

MIN_BYTES = 16
MAX_BYTES = 1024
LINE_SECONDS = 10.0

VISIBLE = re.compile(rb"[!-~]+")
HOW_TO_MAKE = "make one with: openssl rand -hex 32"


def read_token_file(path: Path) -> str:
    """Reads a token from a file that nobody else can read.

    Raises:
        ShimError: PATH_DENIED for a file that others own or can read, INVALID_REQUEST for what is no file or no token.
        OSError: the file cannot be read.
    """
    _check_regular(path, path.stat())
    # What has taken its place since must not block: a FIFO would wait for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        _check_regular(path, status)
        if status.st_uid not in {os.geteuid(), 0}:
            raise ShimError(
                Reason.PATH_DENIED,
                f"the token file {path} belongs to user {status.st_uid}, who can read and change it",
                f"make a file of user {os.geteuid()}, who runs the shim, with a new token in it",
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise ShimError(
                Reason.PATH_DENIED,
                f"the token file {path} has mode {mode:o}: others than its owner can use it",
                f"chmod 600 {path}, and put a new token in it where others may have read it",
            )
        return _checked(file.read(MAX_BYTES + 2), f"the token file {path}")


def read_token_line(fd: int) -> str:
    """Reads a token that is the first line of a stream; what follows it is dropped. Raises INVALID_REQUEST."""
    line = b""
    while b"\n" not in line:
        readable, _, _ = select.select([fd], [], [], LINE_SECONDS)
        data = os.read(fd, MAX_BYTES) if readable else b""
        line += data
        if not data or len(line) > MAX_BYTES + 1:
            raise ShimError(
                Reason.INVALID_REQUEST,
                "no line with a token came on stdin",
                "the parent writes one when it has started the shim, and keeps stdin open",
            )
    return _checked(line.split(b"\n", maxsplit=1)[0], "the first line of stdin")


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ShimError(Reason.INVALID_REQUEST, f"the token file {path} is no regular file", HOW_TO_MAKE)


def _checked(raw: bytes, source: str) -> str:
    token = raw.strip()
    if not MIN_BYTES <= len(token) <= MAX_BYTES:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{source} has a token of {len(token)} bytes; {MIN_BYTES} to {MAX_BYTES} are right",
            HOW_TO_MAKE,
        )
    if not VISIBLE.fullmatch(token):
        raise ShimError(Reason.INVALID_REQUEST, f"{source} has more than one word of visible ASCII", HOW_TO_MAKE)
    return token.decode("ascii")
