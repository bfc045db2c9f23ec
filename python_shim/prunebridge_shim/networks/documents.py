"""JSON objects that requests and folders hold."""

import json
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.subnet.child import read_float


def parse_object(text: str | bytes, where: str, reason: Reason) -> dict[str, Any]:
    """Parses a JSON object, in which floats that JSON lacks are as transformers writes them; raises `reason`."""
    try:
        found = json.loads(text, object_hook=read_float)
    except (ValueError, RecursionError) as error:
        raise ShimError(reason, f"{where} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ShimError(reason, f"{where} is no JSON object")
    return found
