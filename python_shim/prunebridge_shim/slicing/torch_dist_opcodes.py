"""What a pickle would do, checked before any of it is done."""

import pickletools
from typing import Any

from prunebridge_shim.errors import Reason, ShimError

_KNOWN = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    }
)
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"BINGET", "LONG_BINGET"})
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_CALLS = frozenset({"REDUCE", "NEWOBJ"})
_TAKEN = {opcode.name: opcode.stack_before for opcode in pickletools.opcodes}
_TO_MARK = {name for name, taken in _TAKEN.items() if pickletools.markobject in taken}
_COUNTS = {
    name: taken.index(pickletools.markobject) if name in _TO_MARK else len(taken) for name, taken in _TAKEN.items()
}
_LEAVES_ONE = {opcode.name for opcode in pickletools.opcodes if opcode.stack_after}
_MAX_WEIGHT = 10_000


def check_opcodes(data: bytes, what: str) -> None:
    """Refuses a pickle that needs more memory, time or stack than its length lets one expect.

    Raises:
        ShimError: BAD_CHECKPOINT that names the opcode.
    """
    weights = _Weights()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _KNOWN:
                raise bad_pickle(what, f"has the opcode {opcode.name}, which no data of a checkpoint needs")
            # The unpickler's memo is an array: one index makes it take as much memory as that says.
            if opcode.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(data):
                raise bad_pickle(what, f"stores a value at {argument}, more than it has bytes")
            if weights.follow(opcode.name, argument) > _MAX_WEIGHT:
                raise bad_pickle(what, f"has more than {_MAX_WEIGHT:,} tuples within one")
    except ValueError as error:
        raise bad_pickle(what, f"is cut off or no pickle: {error}") from error
    except LookupError as error:
        raise bad_pickle(what, f"cannot be read: {opcode.name} takes what is not there") from error


class _Weights:
    """The unpickler's stack and memo, with the weights of values in their place.

    A tuple weighs one more than its items do together, each counted as often as it occurs: to hash a tuple takes that
    many steps, which may all be calls within calls. What is called with tuples weighs as much as they, for it may be
    one. All else weighs nothing.
    """

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._below: list[list[int]] = []
        self._memo: dict[int, int] = {}

    def follow(self, opcode: str, argument: Any) -> int:
        """Does to weights what an opcode does to values; gives the weight of what it leaves, or raises LookupError."""
        if opcode == "MARK":
            self._below.append(self._stack)
            self._stack = []
            return 0
        if opcode in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            return 0
        weight = self._memo[argument] if opcode in _GETS else self._made(opcode)
        if opcode in _LEAVES_ONE:
            self._stack.append(weight)
        return weight

    def _made(self, opcode: str) -> int:
        taken = self._take(opcode)
        if opcode in _TUPLES:
            return 1 + sum(taken)
        if opcode in _CALLS:
            return sum(taken)
        # Where it takes anything, it adds to the first of it.
        return taken[0] if taken else 0

    def _take(self, opcode: str) -> list[int]:
        items: list[int] = []
        if opcode in _TO_MARK:
            items, self._stack = self._stack, self._below.pop()
        begin = len(self._stack) - _COUNTS[opcode]
        if begin < 0:
            raise LookupError
        taken = self._stack[begin:] + items
        del self._stack[begin:]
        return taken


def bad_pickle(what: str, message: str) -> ShimError:
    """The error for a pickle that is not read."""
    return ShimError(
        Reason.BAD_CHECKPOINT,
        f"{what} {message}; nothing of it was run",
        "take the checkpoint from whom you trust, or save it again",
    )
