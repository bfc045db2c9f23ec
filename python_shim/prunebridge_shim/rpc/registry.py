"""All operations: queued, running and lately ended, and the threads that run them."""

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.options import MAX_OPERATIONS
from prunebridge_shim.rpc.requests import brings_batches

MODELS = "models"
"""The lane of work on models, one piece after the other."""

LANES: Mapping[str, str] = {"slice": "slicing", "tokenize": "tokenizing"}
"""Kinds that touch no model have a thread each: a loss may wait for batches that wait for being tokenized."""

ENDED_KEPT = 256
"""Operations that are remembered after their end."""

RESULTS_KEPT = 16
"""Of these, how many keep the tensors that they left."""

log = logging.getLogger(__name__)


class Worker(Protocol):
    """Does the work of operations: what touches models one after the other on one thread, the rest beside it."""

    def run(self, operation: Operation) -> None:
        """Runs an operation to its success; raises what went wrong."""


class Registry:
    """Queues operations for a worker's thread and finds them again."""

    def __init__(
        self, worker: Worker, lanes: Mapping[str, str] = LANES, attended: Collection[str] = frozenset()
    ) -> None:
        """Starts the threads.

        Args:
            worker: Does the work.
            lanes: The lanes of kinds that are not in the models' lane.
            attended: Lanes without a thread, whose work runs where `run_next` is called.
        """
        self._worker = worker
        self._lanes = lanes
        self._lock = threading.Lock()
        self._operations: dict[str, Operation] = {}
        self._live: dict[str, Operation] = {}  # by request, as far as is known
        self._by_request: dict[str, Operation] = {}
        self._feeds: dict[str, Operation] = {}
        self._ended: deque[tuple[str, Operation]] = deque()
        self._queues: dict[str, SimpleQueue[str]] = {}
        self._closing = False
        for lane in {MODELS, *lanes.values()}:
            self._queues[lane] = SimpleQueue()
            if lane not in attended:
                threading.Thread(target=self._run_all, args=(lane,), name=lane, daemon=True).start()

    def start(self, request_id: str, kind: str, work: Any) -> Operation:
        """Queues work under a request id; the same id again gives the same operation.

        Raises:
            ShimError: SHUTTING_DOWN, LIMIT_EXCEEDED, or INVALID_REQUEST for a request id of another kind of work, and
                for a feed id that is missing or in use.
        """
        with self._lock:
            if known := self._by_request.get(request_id):
                return _same_kind(known, request_id, kind)
            if self._closing:
                raise ShimError(Reason.SHUTTING_DOWN, "the shim is shutting down and starts nothing new")
            self._remember_ended()
            if len(self._live) >= MAX_OPERATIONS:
                raise ShimError(
                    Reason.LIMIT_EXCEEDED,
                    f"{MAX_OPERATIONS} operations are queued or running, which is the most",
                    "wait for some to end",
                )
            feed = self._new_feed(kind, work) if hasattr(work, "feed_id") and not brings_batches(work) else None
            operation = Operation(kind, work, feed)
            self._operations[operation.id] = self._by_request[request_id] = self._live[request_id] = operation
            if feed is not None:
                self._feeds[feed.id] = operation
        self._queues[self._lanes.get(kind, MODELS)].put(operation.id)
        return operation

    def waiting(self, lane: str) -> int:
        """How many operations wait in a lane, more or less."""
        return self._queues[lane].qsize()

    def run_next(self, lane: str, seconds: float = 0.0) -> bool:
        """Runs the next operation of a lane that is attended; False where none comes in time."""
        try:
            self._run(self._queues[lane].get(timeout=seconds), attended=True)
        except Empty:
            return False
        return True

    def fail_waiting(self, lane: str, error: ShimError) -> None:
        """Ends the operations that wait in a lane."""
        while True:
            try:
                operation_id = self._queues[lane].get_nowait()
            except Empty:
                return
            with self._lock:
                operation = self._operations.get(operation_id)
            if operation is not None:
                operation.fail(error)

    def get(self, operation_id: str) -> Operation:
        """Finds an operation; raises UNKNOWN_OPERATION."""
        with self._lock:
            if operation_id not in self._operations:
                raise ShimError(
                    Reason.UNKNOWN_OPERATION,
                    f"no operation {operation_id!r} is known",
                    f"the last {ENDED_KEPT} that ended are remembered; another boot id means that all are gone",
                )
            return self._operations[operation_id]

    def feed(self, feed_id: str) -> Feed:
        """Finds the feed that an operation reads, or read before it ended; raises INVALID_REQUEST."""
        with self._lock:
            operation = self._feeds.get(feed_id)
        if operation is None:
            raise ShimError(
                Reason.INVALID_REQUEST, f"no operation reads a feed {feed_id!r}", "start the operation first"
            )
        return operation.feed

    def cancel_all(self) -> list[Operation]:
        """Cancels all that is queued or runs; gives what there is."""
        with self._lock:
            operations = list(self._operations.values())
        for operation in operations:
            operation.cancel()
        return operations

    def shut_down(self, seconds: float) -> bool:
        """Refuses new work, cancels all there is and waits for its end; False where that does not come in time."""
        with self._lock:
            self._closing = True
        operations = self.cancel_all()
        deadline = time.monotonic() + seconds
        return all(operation.wait(max(0.0, deadline - time.monotonic())) for operation in operations)

    def _new_feed(self, kind: str, work: Any) -> Feed:
        if not work.feed_id:
            raise ShimError(
                Reason.INVALID_REQUEST, f"{kind} names no feed", "choose a feed_id and send its batches after Start"
            )
        reader = self._feeds.get(work.feed_id)
        if reader is not None and not reader.ended:
            raise ShimError(Reason.INVALID_REQUEST, f"feed {work.feed_id!r} belongs to operation {reader.id}")
        return Feed(work.feed_id)

    def _run_all(self, lane: str) -> None:
        while True:
            self._run(self._queues[lane].get())

    def _run(self, operation_id: str, *, attended: bool = False) -> None:
        with self._lock:
            operation = self._operations.get(operation_id)
        # What was cancelled while it waited may be forgotten already.
        if operation is not None and operation.begin():
            log.info("%s %s begins", operation.kind, operation.id)
            try:
                self._worker.run(operation)
            except BaseException as error:
                operation.fail(error)
                # What interrupts an attended lane is meant for whoever attends.
                if attended and not isinstance(error, Exception):
                    raise
            log.info("%s %s ended", operation.kind, operation.id)
        with self._lock:
            self._remember_ended()

    def _remember_ended(self) -> None:
        for request_id, operation in [item for item in self._live.items() if item[1].ended]:
            del self._live[request_id]
            self._ended.append((request_id, operation))
            if len(self._ended) > RESULTS_KEPT:
                self._ended[-RESULTS_KEPT - 1][1].drop_tensors()
            if len(self._ended) > ENDED_KEPT:
                self._forget(*self._ended.popleft())

    def _forget(self, request_id: str, operation: Operation) -> None:
        del self._operations[operation.id], self._by_request[request_id]
        self._feeds = {feed_id: reader for feed_id, reader in self._feeds.items() if reader is not operation}


def _same_kind(operation: Operation, request_id: str, kind: str) -> Operation:
    if operation.kind != kind:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"request id {request_id!r} belongs to a {operation.kind}, and this is a {kind}",
            "choose a new id for each piece of work",
        )
    return operation
