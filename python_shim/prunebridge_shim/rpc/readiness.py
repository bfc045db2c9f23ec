"""The line by which a shim says that it is ready, or why it will not be, and how ranks ended. Standard library only."""

import json
import os
from collections.abc import Iterable
from typing import Any

from prunebridge_shim.errors import ShimError


def tell_ready(fd: int, **facts: Any) -> None:
    """Says where the shim can be reached."""
    _tell(fd, {"event": "ready", **facts})


def tell_failed(fd: int, error: ShimError) -> None:
    """Says why the shim did not start."""
    _tell(fd, {"event": "failed", "reason": error.reason.name, "message": error.message, "hint": error.hint})


def tell_ranks_failed(fd: int, exits: Iterable[tuple[int, int]]) -> None:
    """Says which ranks of a job failed, the first one first, and their exit codes: negative ones are signals."""
    _tell(fd, {"event": "ranks_failed", "ranks": [{"rank": rank, "exit": code} for rank, code in exits]})


def _tell(fd: int, message: dict[str, Any]) -> None:
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")
