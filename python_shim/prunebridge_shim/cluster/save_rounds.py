"""Which rank writes which of a child's rows, and when."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prunebridge_shim.cluster.holdings import Holding
from prunebridge_shim.cluster.save_plan import PlacedPart
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.request import TensorPart
from prunebridge_shim.tensors import describe

ROUND_BYTES = 128 << 20
"""What ranks that hold the same layers write at most until all ranks hear of each other."""


@dataclass(frozen=True)
class Band:
    """Rows `begin` to `end` of a part of the child."""

    part: int
    begin: int
    end: int


@dataclass(frozen=True)
class Told:
    """What the first rank of those that hold a rectangle tells the leader of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def tell(holdings: Sequence[Holding]) -> list[Told]:
    """What this rank tells the leader."""
    return [Told(one.name, one.dtype, one.shape, one.values.numel()) for one in holdings if one.copy.rank == 0]


def plan_rounds(parts: Sequence[PlacedPart], told: Sequence[Sequence[Told]]) -> list[list[Band]]:
    """Checks that the ranks hold what is asked for, and shares it out over rounds, the same ones for all ranks.

    In each round every rank has something to do for as long as that goes: what different ranks hold goes into the same
    rounds. Within a round bands are in the order of the parts, so that ranks that exchange rows do so in one order.

    Args:
        parts: All of the child.
        told: What each rank told.

    Raises:
        ShimError: BAD_TENSOR where no rank holds a tensor, or it is another one; INVALID_REQUEST for what live weights
            cannot be cut into.
    """
    holders = _find_holders(parts, told)
    rounds: list[list[Band]] = []
    filled: dict[int, tuple[int, int]] = {}
    for part in parts:
        holder = holders[part.source.source_name]
        for band in _bands(part):
            number, used = filled.get(holder, (0, 0))
            size = (band.end - band.begin) * part.row_bytes
            if used and used + size > ROUND_BYTES:
                number, used = number + 1, 0
            filled[holder] = number, used + size
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(band)
    return rounds


def _bands(part: PlacedPart) -> Iterator[Band]:
    rows = part.kept.shape[0]
    step = max(1, ROUND_BYTES // max(1, part.row_bytes))
    for begin in range(0, rows, step):
        yield Band(part.number, begin, min(begin + step, rows))


def _find_holders(parts: Sequence[PlacedPart], told: Sequence[Sequence[Told]]) -> dict[str, int]:
    """The first rank that holds any of a tensor, by its name."""
    found: dict[str, Told] = {}
    sizes: dict[str, int] = {}
    holders: dict[str, int] = {}
    for rank, of_rank in enumerate(told):
        for one in of_rank:
            found[one.name] = one
            sizes[one.name] = sizes.get(one.name, 0) + one.size
            holders.setdefault(one.name, rank)
    for part in parts:
        _check(part.source, found, sizes)
    return holders


def _check(part: TensorPart, found: Mapping[str, Told], sizes: Mapping[str, int]) -> None:
    one = found.get(part.source_name)
    if part.blocks or part.index or not part.shape:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{part.source_name} is to be cut in blocks, at an index or as one number: no tensor of a job's model is",
        )
    if one is None:
        near = ", ".join(difflib.get_close_matches(part.source_name, found, n=3))
        raise ShimError(
            Reason.BAD_TENSOR, f"no rank holds a tensor {part.source_name}", f"nearest are {near}" if near else ""
        )
    if (one.dtype, one.shape) != (part.dtype, part.shape):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{part.source_name} of the job's model is {describe(one.dtype, one.shape)}"
            f" where the request says {describe(part.dtype, part.shape)}",
        )
    if sizes[part.source_name] != math.prod(one.shape):
        raise ShimError(
            Reason.BAD_TENSOR,
            f"the ranks hold {sizes[part.source_name]:,} elements of {part.source_name},"
            f" which has {math.prod(one.shape):,}",
        )
