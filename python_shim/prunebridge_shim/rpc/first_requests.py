"""Calls that have taken a place, and the requests that they owe for it."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from prunebridge_shim.rpc.options import FIRST_REQUEST_SECONDS


class FirstRequests:
    """Cancels calls whose first request does not come in time: gRPC itself would wait for ever, and keep a thread."""

    def __init__(self, seconds: float = FIRST_REQUEST_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._awaited: dict[grpc.ServicerContext, float] = {}
        threading.Thread(target=self._cancel_late, name="first-requests", daemon=True).start()

    def wait(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Gives the same requests once the first is there, or the call has ended without one."""
        with self._lock:
            self._awaited[context] = time.monotonic()
        try:
            first = list(itertools.islice(requests, 1))
        finally:
            with self._lock:
                del self._awaited[context]
        return itertools.chain(first, requests)

    def _cancel_late(self) -> None:
        while True:
            time.sleep(self._seconds / 10)
            began_before = time.monotonic() - self._seconds
            with self._lock:
                late = [context for context, began in self._awaited.items() if began < began_before]
            for context in late:
                context.cancel()
