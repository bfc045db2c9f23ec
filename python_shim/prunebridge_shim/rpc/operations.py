"""One operation: its latest progress, its end and what it leaves."""

import time
from collections.abc import Callable, Iterator, Mapping
from threading import Condition
from typing import Any
from uuid import uuid4

from prunebridge_shim.errors import Reason, ShimError, cancelled
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.options import HEARTBEAT_SECONDS
from prunebridge_shim.rpc.translate import to_detail
from prunebridge_shim.tensors import HostTensor, Tick

PROGRESS_SECONDS = 0.1
"""Between two progress events of one operation."""


class Operation:
    """A piece of work that was started. Sequence numbers of its events count from 1; only the latest event is kept."""

    def __init__(self, kind: str, work: Any, feed: Feed | None) -> None:
        self.id = uuid4().hex
        self.kind = kind
        self.work = work
        self._feed = feed
        self._changed = Condition()
        self._latest = operation_pb2.WatchResponse()
        self._running = False
        self._cancelled = False
        self._ended = False
        self._tensors: Mapping[str, HostTensor] | None = {}
        self._last_progress = 0.0

    @property
    def feed(self) -> Feed:
        """The feed of work that reads one."""
        assert self._feed is not None
        return self._feed

    def begin(self) -> bool:
        """Claims the operation for running; False where it was cancelled before."""
        with self._changed:
            self._running = not self._ended
            if self._running and self._feed is not None:
                self._feed.begin()
            return self._running

    def succeed(self, result: operation_pb2.Succeeded, tensors: Mapping[str, HostTensor]) -> None:
        """Ends with a result and the tensors that it describes."""
        self._end(operation_pb2.WatchResponse(succeeded=result), tensors)

    def fail(self, error: BaseException) -> None:
        """Ends with an error."""
        self._end(operation_pb2.WatchResponse(failed=to_detail(error)), {})

    def cancel(self) -> None:
        """Ends the operation where it has not begun, else asks it to end at its next tick."""
        with self._changed:
            self._cancelled = True
            if self._running and self._feed is not None:
                self._feed.cancel()
            if not self._running:
                self._end(operation_pb2.WatchResponse(failed=to_detail(cancelled())), {})

    def ticker(self, phase: str, unit: str) -> Tick:
        """Makes the function that reports a phase's progress, and raises CANCELLED where the end was asked for."""
        began = time.monotonic()

        def tick(done: float, total: float) -> None:
            if self._cancelled:
                raise cancelled()
            now = time.monotonic()
            if now - self._last_progress < PROGRESS_SECONDS:
                return
            self._last_progress = now
            progress = operation_pb2.Progress(phase=phase, done=done, total=total, unit=unit)
            if 0 < done <= total:
                progress.eta_seconds = (now - began) * (total - done) / done
            self._append(operation_pb2.WatchResponse(progress=progress))

        return tick

    def follow(self, after_seq: int, is_watched: Callable[[], bool]) -> Iterator[operation_pb2.WatchResponse]:
        """Yields the latest event after a sequence number, signs of life, and the last event, until nobody watches.

        Raises:
            ShimError: INVALID_REQUEST for a sequence number that was never given.
        """
        seen = after_seq
        if seen > self._latest.seq:
            raise ShimError(Reason.INVALID_REQUEST, f"after_seq {seen} is beyond the last event, {self._latest.seq}")
        while True:
            with self._changed:
                if seen == self._latest.seq and not self._ended and is_watched():
                    self._changed.wait(HEARTBEAT_SECONDS)
                latest, ended = self._latest, self._ended
            if latest.seq > seen:
                yield latest
            if ended or not is_watched():
                return
            if latest.seq == seen:
                yield operation_pb2.WatchResponse(seq=seen)
            seen = latest.seq

    def wake(self) -> None:
        """Lets followers look whether they are still watched."""
        with self._changed:
            self._changed.notify_all()

    def tensors(self) -> Mapping[str, HostTensor]:
        """What a successful end left; raises INVALID_REQUEST before it, or once it was dropped."""
        with self._changed:
            if not self._ended:
                raise ShimError(
                    Reason.INVALID_REQUEST, f"operation {self.id} has not ended", "watch it to its end first"
                )
            if self._tensors is None:
                raise ShimError(
                    Reason.INVALID_REQUEST, f"the results of operation {self.id} were dropped for newer ones"
                )
            return self._tensors

    def drop_tensors(self) -> None:
        """Gives the memory of the results back."""
        with self._changed:
            self._tensors = None

    @property
    def ended(self) -> bool:
        """Whether its last event was given."""
        return self._ended

    def wait(self, seconds: float) -> bool:
        """Waits for the end; False where it does not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, seconds)

    def _end(self, event: operation_pb2.WatchResponse, tensors: Mapping[str, HostTensor]) -> None:
        with self._changed:
            if self._ended:
                return
            self._tensors = tensors
            self._ended = True
            self.work = None  # a plan of many tensors is large
            self._append(event)
        if self._feed is not None:
            self._feed.close()

    def _append(self, event: operation_pb2.WatchResponse) -> None:
        with self._changed:
            event.seq = self._latest.seq + 1
            self._latest = event
            self._changed.notify_all()
