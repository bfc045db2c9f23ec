"""Tensors outside of torch: element types as safetensors spells them, and arrays that carry one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes of one element."""

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
    def of(cls, dtype: str, shape: Sequence[int], data: bytearray) -> "HostTensor":
        """Views row-major little-endian bytes as a tensor, without a copy."""
        numpy_dtype = NUMPY_DTYPES.get(dtype, f"<u{ITEM_BYTES[dtype]}")
        return cls(dtype, np.frombuffer(data, dtype=numpy_dtype).reshape(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""
        return self.array.shape

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)


Batch = Mapping[str, HostTensor]
"""What a feed brings at a time: tensors by name."""

Returns = Literal["nothing", "loss", "last_logits", "logits"]
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
    """Bytes of a tensor."""
    return math.prod(shape) * ITEM_BYTES[dtype]


def describe(dtype: str, shape: Sequence[int]) -> str:
    """A tensor's type as messages show it, for example `BF16 [4096, 1024]`."""
    return f"{dtype} [{', '.join(map(str, shape))}]"
