"""Tensors outside of torch: element types as safetensors spells them, and arrays that carry one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ITEM_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
"""Bits of one element. Those under eight are packed."""

NUMPY_DTYPES: Mapping[str, str] = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "I64": "<i8",
    "U64": "<u8",
    "F64": "<f8",
    "C64": "<c8",
}
"""numpy's spelling of an element type. Those that it lacks are kept as unsigned integers of their width."""

Tick = Callable[[float, float], None]
"""`tick(done, total)` says how far work is, at a place where it can end; it raises where its end was asked for."""


@dataclass(frozen=True)
class HostTensor:
    """A tensor in host memory: `array` has the tensor's shape and holds its bits."""

    dtype: str
    array: NDArray[Any]

    @classmethod
    def empty(cls, dtype: str, shape: Sequence[int]) -> "HostTensor":
        """A tensor whose bytes are still to be written, and whose elements are not packed."""
        return cls(dtype, np.empty(shape, NUMPY_DTYPES.get(dtype, f"<u{ITEM_BITS[dtype] // 8}")))

    def overwrite(self, offset: int, data: bytes | memoryview) -> None:
        """Writes some of its row-major little-endian bytes."""
        # Between arrays, which does not hold up other threads.
        self._flat[offset : offset + len(data)] = np.frombuffer(data, "u1")

    @property
    def raw(self) -> memoryview:
        """Its row-major little-endian bytes; a copy where they lie otherwise."""
        return self._flat.data

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        return self.array.shape

    @property
    def _flat(self) -> NDArray[np.uint8]:
        return self.array.reshape(-1).view("u1")

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


Batch = Mapping[str, HostTensor]
"""What a feed brings at a time: tensors by name."""

Returns = Literal["nothing", "loss", "last_logits", "logits", "output"]
"""What a batch gives back."""


def _unheard(_answer: Batch) -> None:
    """Takes the answer of a batch that asked for none."""


@dataclass(frozen=True)
class Ask:
    """A batch to run.

    Attributes:
        batch: Its tensors.
        returns: What it gives back.
        answer: Takes that, once; it may wait until there is room, and raises where nobody reads it any more.
    """

    batch: Batch
    returns: Returns = "nothing"
    answer: Callable[[Batch], None] = _unheard


def byte_length(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor; packed elements that do not fill the last are rounded up."""
    return -(-math.prod(shape) * ITEM_BITS[dtype] // 8)


def is_packed(dtype: str) -> bool:
    """Whether elements share bytes."""
    return ITEM_BITS[dtype] < 8  # noqa: PLR2004 bits of a byte


def describe(dtype: str, shape: Sequence[int]) -> str:
    """A tensor's type as messages show it, for example `BF16 [4096, 1024]`."""
    return f"{dtype} [{', '.join(map(str, shape))}]"
