"""Pickles as data: read without running anything of theirs."""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prunebridge_shim.errors import Reason, ShimError

_OPCODES = frozenset(
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
_MALFORMED = (pickle.UnpicklingError, ValueError, TypeError, AttributeError, EOFError, LookupError, OverflowError)


class Record:
    """What a class would have made: its full name, the arguments, whether it was called, and the state that was set."""

    name = ""
    args: tuple[Any, ...]
    state: Any
    called = False

    def __new__(cls, *args: Any) -> "Record":  # noqa: D102 pickles call it
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *_: Any) -> None:
        self.called = True  # __new__ alone makes what a pickle does not call

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True)
class Persistent:
    """What lies outside of the pickle, by its writer's own id: a storage of torch's."""

    id: Any


_VALUES: Mapping[str, Callable[..., Any]] = {"collections.OrderedDict": dict, "torch.Size": tuple}


def read_pickle(data: bytes, known: frozenset[str], what: str) -> Any:
    """Reads a pickle in which only the given classes occur; of each there are `Record`s, sizes are tuples.

    Raises:
        ShimError: BAD_CHECKPOINT that names the class or the opcode.
    """
    _check_opcodes(data, what)
    try:
        return _DataUnpickler(data, known, what).load()
    except _MALFORMED as error:
        raise _bad(what, f"cannot be read: {error}") from error


def _check_opcodes(data: bytes, what: str) -> None:
    """Checks before a byte is taken: one memo index makes the unpickler take as much memory as it says."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                raise _bad(what, f"has the opcode {opcode.name}, which no data of a checkpoint needs")
            if opcode.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(data):
                raise _bad(what, f"stores a value at {argument}, more than it has bytes")
    except ValueError as error:
        raise _bad(what, f"is cut off or no pickle: {error}") from error


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, known: frozenset[str], what: str) -> None:
        super().__init__(io.BytesIO(data))
        self._known = known
        self._what = what
        self._classes: dict[str, Callable[..., Any]] = dict(_VALUES)

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._known:
            raise _bad(self._what, f"holds {name}, which is no class that such a file is known to hold")
        if name not in self._classes:
            self._classes[name] = type("Named", (Record,), {"name": name})
        return self._classes[name]

    def persistent_load(self, pid: Any) -> Persistent:
        return Persistent(pid)


def _bad(what: str, message: str) -> ShimError:
    return ShimError(
        Reason.BAD_CHECKPOINT,
        f"{what} {message}; nothing of it was run",
        "take the checkpoint from whom you trust, or save it again",
    )
