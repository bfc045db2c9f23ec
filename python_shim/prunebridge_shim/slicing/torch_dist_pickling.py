"""Pickles written without the classes that they name."""

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prunebridge_shim.slicing.torch_dist_pickle import Persistent


@dataclass(frozen=True)
class Name:
    """A class or function, to be written by its module and name."""

    module: str
    name: str

    def __call__(self, *args: Any) -> "Made":
        """Calls it, when the pickle is read."""
        return Made(self, args)

    def holding(self, **state: Any) -> "Made":
        """An object of the class that is given its state without a call."""
        return Made(self, (), state, called=False)


@dataclass(frozen=True, eq=False)
class Made:
    """An object to be written: what is called with what, or is made anew without a call, and the state that it gets."""

    of: Name
    args: tuple[Any, ...]
    state: Any = None
    called: bool = True


def named(full: str) -> Name:
    """A class or function by its full name."""
    module, _, name = full.rpartition(".")
    return Name(module, name)


def write_pickle(value: Any) -> bytes:
    """Writes plain values, `Name`s, `Made`s and `Persistent`s in protocol 2, the one of torch.save."""
    return b"\x80\x02" + _encode(value) + b"."


def _encode(value: Any) -> bytes:
    return _ENCODERS[type(value)](value)


def _encode_all(values: Iterable[Any]) -> bytes:
    return b"".join(map(_encode, values))


def _encode_int(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def _encode_text(value: str) -> bytes:
    text = value.encode()
    return b"X" + struct.pack("<I", len(text)) + text


def _encode_made(value: Made) -> bytes:
    made = _encode(value.of) + _encode(value.args) + (b"R" if value.called else b"\x81")
    return made + (_encode(value.state) + b"b" if value.state else b"")


_ENCODERS: Mapping[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"\x88" if value else b"\x89",
    int: _encode_int,
    float: lambda value: b"G" + struct.pack(">d", value),
    str: _encode_text,
    tuple: lambda value: b"(" + _encode_all(value) + b"t",
    list: lambda value: b"](" + _encode_all(value) + b"e",
    dict: lambda value: b"}(" + _encode_all(itertools.chain.from_iterable(value.items())) + b"u",
    Name: lambda value: f"c{value.module}\n{value.name}\n".encode(),
    Persistent: lambda value: _encode(value.id) + b"Q",
    Made: _encode_made,
}
