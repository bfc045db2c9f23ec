"""How ranks hear of one another whatever the threads that run the model wait for.

Each rank has one line on a board, which a thread of its own rewrites all the time. The leader reads all lines, a
follower the leader's. A rank whose line stands still is dead, or stopped.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from prunebridge_shim.cluster.exchange import LEADER, Exchange

LONGEST_PAUSE_S = 0.1
LOOKS_WITHIN_PATIENCE = 25
"""As rarely as a rank may look while nothing is asked of it."""

Line = Mapping[str, Any]


class Board:
    """The lines that a rank reads, and its own. Only its thread speaks to the store."""

    def __init__(self, store: Store, rank: int, read: Sequence[int], patience_s: float) -> None:
        """Starts the thread.

        Args:
            store: Holds the lines; nobody else may use this connection.
            rank: Whose line this rank writes.
            read: Whose lines it reads.
            patience_s: For how long a line may stand still.
        """
        self._store = store
        self._rank = rank
        self._read = [other for other in read if other != rank]
        self._patience_s = patience_s
        self._pause_s = self._short_s = min(LONGEST_PAUSE_S, patience_s / LOOKS_WITHIN_PATIENCE)
        # This process may have been stopped itself: then the time that has passed says little of the others.
        self._longest_gap_s = patience_s / 8
        self._own: Line = MappingProxyType({})
        self._lines: dict[int, Line] = {}
        self._silent_s = dict.fromkeys(self._read, 0.0)
        self._looks = 0
        self._blind_s = 0.0
        self._closed = threading.Event()
        self._woken = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="prunebridge-board", daemon=True)
        self._thread.start()

    def write(self, **words: Any) -> None:
        """Adds to this rank's line, or replaces what it said."""
        self._own = MappingProxyType({**self._own, **words})
        self._woken.set()

    def line(self, rank: int) -> Line:
        """What a rank's line said last; empty before it was first read."""
        return self._lines.get(rank, {})

    def lost(self) -> list[int]:
        """The ranks whose lines stand still; the leader where its store does."""
        if self._is_blind:
            return [LEADER]
        return [rank for rank, silent_s in self._silent_s.items() if silent_s > self._patience_s]

    def wait(self) -> None:
        """Waits for the next look at the board, or a little while."""
        began = time.monotonic()
        with self._changed:
            looks = self._looks
            seen = self._changed.wait_for(lambda: self._looks != looks, 2 * self._pause_s)
        # A store whose process was stopped holds its clients for ever.
        self._blind_s = 0.0 if seen else self._blind_s + self._passed_since(began)

    def watch_closely(self) -> None:
        """Looks as often as work needs that ranks do together."""
        self._pause_s = self._short_s
        self._woken.set()

    def watch_at_rest(self) -> None:
        """Looks no more often than it takes to know of a lost rank in time."""
        self._pause_s = self._patience_s / LOOKS_WITHIN_PATIENCE

    def close(self) -> None:
        """Ends the thread, after it has written what was to be written; leaves it where the store does not answer."""
        self._closed.set()
        self._woken.set()
        self._thread.join(0 if self._is_blind else self._patience_s)

    @property
    def _is_blind(self) -> bool:
        return self._blind_s > self._patience_s

    def _run(self) -> None:
        looked = time.monotonic()
        beats = 0
        try:
            while not self._closed.is_set():
                self._woken.clear()
                beats += 1
                passed_s, looked = self._passed_since(looked), time.monotonic()
                self._look(beats, passed_s)
                self._woken.wait(self._pause_s)
            self._store.set(_key(self._rank), _dump({**self._own, "beat": beats + 1}))
        except RuntimeError:
            # The leader holds the store: without the one, the other is gone too.
            self._silent_s.update(dict.fromkeys(self._read, float("inf")))
        with self._changed:
            self._looks += 1
            self._changed.notify_all()

    def _passed_since(self, then: float) -> float:
        return min(time.monotonic() - then, self._longest_gap_s)

    def _look(self, beats: int, passed_s: float) -> None:
        self._store.set(_key(self._rank), _dump({**self._own, "beat": beats}))
        texts = self._store.multi_get([_key(rank) for rank in self._read]) if self._read else []
        for rank, text in zip(self._read, texts, strict=True):
            line = json.loads(text)
            if line.get("beat") != self._lines.get(rank, {}).get("beat"):
                self._silent_s[rank] = 0.0
            else:
                self._silent_s[rank] += passed_s
            self._lines[rank] = line
        with self._changed:
            self._looks += 1
            self._changed.notify_all()


def open_store(exchange: Exchange, patience_s: float) -> Store:
    """Opens a store that the leader holds, on every rank, each of which has its line on it afterwards."""
    patience = timedelta(seconds=patience_s)
    store, place = None, None
    if exchange.rank == LEADER:
        host = os.environ.get("MASTER_ADDR") or socket.gethostname()
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=patience)
        place = (host, store.port)
    host, port = exchange.share(place)
    if store is None:
        store = TCPStore(host, port, is_master=False, timeout=patience)
    store.set(_key(exchange.rank), _dump({}))
    exchange.gather_everywhere(None)
    return store


def _key(rank: int) -> str:
    return f"line/{rank}"


def _dump(line: Line) -> str:
    return json.dumps(dict(line))
