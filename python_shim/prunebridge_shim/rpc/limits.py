"""How much clients may send, and how often they may ask."""

import time
from collections.abc import Callable
from threading import Lock

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.options import MAX_BATCH_BYTES, MAX_BATCH_TENSORS


class Allowance:
    """Takes so many events in a second on average, and so many at once."""

    def __init__(self, per_second: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._clock = clock
        self._lock = Lock()
        self._left = at_once
        self._looked = clock()

    def take(self) -> bool:
        """Counts an event; False, and nothing is counted, where it is one too many."""
        with self._lock:
            now = self._clock()
            self._left = min(self._at_once, self._left + (now - self._looked) * self._per_second)
            self._looked = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class BatchRoom:
    """What a batch may still hold."""

    def __init__(self) -> None:
        self._bytes = MAX_BATCH_BYTES
        self._tensors = MAX_BATCH_TENSORS

    def take(self, name: str, size: int) -> None:
        """Takes room for a tensor, before any memory is taken for it; raises LIMIT_EXCEEDED."""
        self._bytes -= size
        self._tensors -= 1
        if self._bytes < 0:
            raise ShimError(
                Reason.LIMIT_EXCEEDED,
                f"with tensor {name!r} of {size:,} bytes the batch has more than {MAX_BATCH_BYTES:,}",
                "send smaller batches",
            )
        if self._tensors < 0:
            raise ShimError(
                Reason.LIMIT_EXCEEDED, f"the batch has more than {MAX_BATCH_TENSORS:,} tensors", "send smaller batches"
            )
