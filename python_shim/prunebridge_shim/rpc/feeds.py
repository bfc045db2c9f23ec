"""Batches between a client's stream and the operation that reads it."""

from collections import deque
from collections.abc import Iterator
from threading import Condition

from prunebridge_shim.errors import Reason, ShimError, cancelled
from prunebridge_shim.rpc.options import FEED_DEPTH
from prunebridge_shim.tensors import Batch


class Feed:
    """A queue of at most `FEED_DEPTH` batches with one sender and one reader, either of which may be lost."""

    def __init__(self, feed_id: str) -> None:
        self.id = feed_id
        self._changed = Condition()
        self._waiting: deque[Batch] = deque()
        self._taken = 0
        self._attached = False
        self._complete = False  # the sender has sent its last batch
        self._broken: ShimError | None = None  # the sender is lost
        self._cancelled = False  # the reader is to stop
        self._closed = False  # the reader has ended

    def attach(self) -> None:
        """Claims the sender's side; raises INVALID_REQUEST where another stream has it."""
        with self._changed:
            if self._attached:
                raise ShimError(Reason.INVALID_REQUEST, f"feed {self.id!r} has a stream already")
            self._attached = True

    def put(self, batch: Batch) -> None:
        """Adds a batch once there is room; raises FEED_LOST where the operation has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < FEED_DEPTH or self._closed)
            if self._closed:
                raise self._reader_gone()
            self._waiting.append(batch)
            self._changed.notify_all()

    def complete(self) -> None:
        """Says that no batch follows."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def break_off(self, error: ShimError) -> None:
        """Says that the sender is lost, which fails the operation."""
        with self._changed:
            self._broken = error
            self._changed.notify_all()

    def wait_until_taken(self) -> int:
        """Waits until the operation has taken every batch; gives their number.

        Raises:
            ShimError: FEED_LOST where the operation ended before, or what broke the stream.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._all_taken or self._closed or self._broken)
            if self._broken:
                raise self._broken
            if not self._all_taken:
                raise self._reader_gone()
            return self._taken

    def __iter__(self) -> Iterator[Batch]:
        """Takes batches until the sender has sent its last; raises CANCELLED, or what broke the stream."""
        while (batch := self._take()) is not None:
            yield batch

    def cancel(self) -> None:
        """Wakes a reader that waits, and has it raise CANCELLED."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def close(self) -> None:
        """Says that the operation has ended; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._complete = self._all_taken
            self._waiting.clear()
            self._changed.notify_all()

    @property
    def _all_taken(self) -> bool:
        return self._complete and not self._waiting

    def _take(self) -> Batch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._complete or self._broken or self._cancelled)
            if self._cancelled:
                raise cancelled()
            if self._broken:
                raise self._broken
            if not self._waiting:
                return None
            self._taken += 1
            batch = self._waiting.popleft()
            self._changed.notify_all()
            return batch

    def _reader_gone(self) -> ShimError:
        return ShimError(
            Reason.FEED_LOST, f"the operation that read feed {self.id!r} has ended", "its last event says why"
        )
