"""JSON of headers as every reader takes it: no name twice, whole numbers in digits alone, all text Unicode."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

MAX_NUMBER = 2**53 - 1
"""The largest number up to which JSON's readers agree on all."""


def parse_strict_json(raw: bytes) -> Any:
    """Parses UTF-8 text.

    Raises:
        ValueError: it is malformed, or readers would take it differently.
        RecursionError: it is nested too deep.
    """
    return json.loads(
        raw.decode("utf-8"), object_pairs_hook=_once, parse_int=_whole, parse_float=_refuse, parse_constant=_refuse
    )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("a name occurs twice")
    for name, value in pairs:
        name.encode()  # fails on half of a surrogate pair, which no message could carry
        if isinstance(value, str):
            value.encode()
    return parsed


def _whole(digits: str) -> int:
    if digits.startswith("-") or len(digits) > len(str(MAX_NUMBER)) or int(digits) > MAX_NUMBER:
        raise ValueError(f"{digits[:40]} is not a whole number up to {MAX_NUMBER}")
    return int(digits)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number[:40]} is not a whole number in digits")
