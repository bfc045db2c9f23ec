"""Pickles as data: read without running anything of theirs."""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prunebridge_shim.slicing.torch_dist_opcodes import bad_pickle, check_opcodes

_MALFORMED = (
    *(pickle.UnpicklingError, ValueError, TypeError, AttributeError),
    *(EOFError, LookupError, OverflowError, RecursionError),
)
_MOST_ARGUMENTS = 100
"""Of a call: each has a copy of its own, of arguments that may be shared."""


class Record:
    """What a class would have made: its full name, the arguments, whether it was called, and the state that was set."""

    name = ""
    args: tuple[Any, ...]
    state: Any
    called = False

    def __new__(cls, *args: Any) -> "Record":  # noqa: D102 pickles call it
        if len(args) > _MOST_ARGUMENTS:
            raise ValueError(f"{cls.name} is given {len(args)} arguments")
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *_: Any) -> None:
        self.called = True  # __new__ alone makes what a pickle does not call

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True, eq=False, repr=False)
class Persistent:
    """What lies outside of the pickle, by its writer's own id: a storage of torch's. Neither hashed nor told by it."""

    id: Any


def _empty_dict() -> dict[Any, Any]:
    return {}


def _size_of(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise ValueError("a torch.Size is made of something other than a tuple")
    return sizes


# Neither copies what it is given, which may be large and shared.
_VALUES: Mapping[str, Callable[..., Any]] = {"collections.OrderedDict": _empty_dict, "torch.Size": _size_of}


def read_pickle(data: bytes, known: frozenset[str], what: str) -> Any:
    """Reads a pickle in which only the given classes occur; of each there are `Record`s, sizes are tuples.

    Raises:
        ShimError: BAD_CHECKPOINT that names the class or the opcode.
    """
    check_opcodes(data, what)
    try:
        return _DataUnpickler(data, known, what).load()
    except _MALFORMED as error:
        raise bad_pickle(what, f"cannot be read: {error}") from error


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, known: frozenset[str], what: str) -> None:
        super().__init__(io.BytesIO(data))
        self._known = known
        self._what = what
        self._classes: dict[str, Callable[..., Any]] = dict(_VALUES)

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._known:
            raise bad_pickle(self._what, f"holds {name}, which is no class that such a file is known to hold")
        if name not in self._classes:
            self._classes[name] = type("Named", (Record,), {"name": name})
        return self._classes[name]

    def persistent_load(self, pid: Any) -> Persistent:
        return Persistent(pid)
