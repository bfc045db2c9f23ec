"""Who may talk to a shim, and what they may do."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.limits import Allowance
from prunebridge_shim.rpc.options import STARTS_AT_ONCE, STARTS_PER_SECOND

TOKEN_KEY = "authorization"  # noqa: S105 the metadata's key
SCHEME = "Bearer "
CHANGING = frozenset({"slice", "cut_model", "save_model", "calibrate_norms", "save_network"})
"""Kinds of work that change what others use. An opened model is its opener's: nobody else knows its id."""

BUILDING = frozenset({"built", "pruned_dir"})
"""Sources of a network that may be a Python function, with arguments of the client's or the folder's choice."""


class Right(IntEnum):
    """What a token gives, numbered and named as `Right` of the protocol."""

    READ = 1
    CHANGE = 2


Rights = tuple[Right, ...]

READ_ONLY: Rights = (Right.READ,)
ALL_RIGHTS: Rights = (Right.READ, Right.CHANGE)


@dataclass(frozen=True)
class Grant:
    """The rights of those who hold a token, and the work that they may still start."""

    rights: Rights
    starts: Allowance = field(default_factory=lambda: Allowance(STARTS_PER_SECOND, STARTS_AT_ONCE))

    def check(self, kind: str, work: Any = None) -> None:
        """Raises RIGHT_DENIED where the token does not give the right to start, or to cancel, a kind of work.

        Args:
            kind: As the request to start names it.
            work: What is to be started; None to cancel.
        """
        if (kind in CHANGING or _builds(kind, work)) and Right.CHANGE not in self.rights:
            raise ShimError(
                Reason.RIGHT_DENIED,
                f"{kind} needs the right to change, and this token gives the right to read",
                "use the token of the shim's --token-file; this one is of its --read-token-file",
            )


class Access:
    """The tokens that a shim knows, kept as digests, and what each of them gives."""

    def __init__(self, tokens: Mapping[str, Rights]) -> None:
        self._grants = [(_digest(token), Grant(rights)) for token, rights in tokens.items()]

    def find(self, metadata: Iterable[tuple[str, str | bytes]]) -> Grant | None:
        """The grant of a call's token, or None. Takes as long for a token that is nearly right as for any other."""
        given = [value for key, value in metadata if key == TOKEN_KEY]
        token = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
        digest = _digest(token.removeprefix(SCHEME) if token.startswith(SCHEME) else "")
        found = None
        for known, grant in self._grants:
            if hmac.compare_digest(known, digest):
                found = grant
        return found

    def of_call(self, metadata: Iterable[tuple[str, str | bytes]]) -> Grant:
        """The grant of a call that was let in."""
        grant = self.find(metadata)
        assert grant is not None
        return grant


def _builds(kind: str, work: Any) -> bool:
    """Whether work calls a function with arguments that its client chose, or a folder that it names."""
    return kind == "open_network" and work is not None and work.WhichOneof("source") in BUILDING


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()
