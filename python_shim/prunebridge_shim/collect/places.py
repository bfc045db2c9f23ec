"""Modules of a model by their paths."""

import difflib
from collections.abc import Sequence
from typing import Protocol

from torch import nn

from prunebridge_shim.errors import Reason, ShimError


class Place(Protocol):
    """Where something is measured: `key` names it, `module` is a dotted path, as in `named_modules()`."""

    @property
    def key(self) -> str: ...  # noqa: D102 the class's own says it

    @property
    def module(self) -> str: ...  # noqa: D102


def find_places(model: nn.Module, places: Sequence[Place], kind: str) -> list[nn.Module]:
    """Looks up the module of each place; `kind` is what messages call one.

    Raises:
        ShimError: UNKNOWN_MODULE with the nearest names, or INVALID_REQUEST where two places have one key.
    """
    modules = dict(model.named_modules())
    keys = set()
    for place in places:
        if place.module not in modules:
            nearest = difflib.get_close_matches(place.module, modules, n=3)
            hint = f"nearest are {', '.join(nearest)}" if nearest else ""
            raise ShimError(
                Reason.UNKNOWN_MODULE, f"{kind} {place.key}: the model has no module {place.module!r}", hint
            )
        if place.key in keys:
            raise ShimError(Reason.INVALID_REQUEST, f"two {kind}s have the key {place.key!r}")
        keys.add(place.key)
    return [modules[place.module] for place in places]
