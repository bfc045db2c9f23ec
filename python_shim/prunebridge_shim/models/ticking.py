"""Says how far code that is not the shim's is, by the runs of the model that it was lent."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from prunebridge_shim.tensors import Tick


@contextmanager
def ticking(model: Any, tick: Tick) -> Iterator[None]:
    """Ticks at each run of a model while the context lasts, and at its end."""
    runs = count()
    # Whoever runs a causal language model runs its decoder.
    handle = getattr(model, "base_model", model).register_forward_pre_hook(lambda *_: tick(next(runs), 0))
    try:
        yield
    finally:
        handle.remove()
        # Code may have swallowed what told it to end.
        tick(next(runs), 0)
