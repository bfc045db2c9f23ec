"""Who is at work in a job's folder: each process shows that it lives by a file that it keeps changing.

Clocks of machines differ, so that an observer goes by its own: an owner is gone once its file has not changed for a
while. One on the observer's own machine is gone as soon as its process is.
"""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from prunebridge_shim.slicing.opened import OpenFolder

NAME = re.compile(r"[0-9a-f]{32}")

BEAT_SECONDS = 3.0
"""Between two signs of life."""

STALE_SECONDS = 30.0
"""An owner without a sign of life for so long is taken for gone. One that comes back does no harm."""

DEAD_STATES = "ZXx"


class Owner:
    """This process in a job's folder, for one run. It is there until `leave`."""

    def __init__(self, folder: OpenFolder) -> None:
        self.name = uuid4().hex
        self._folder = folder
        self._beats = 0
        self._last_beat = time.monotonic()
        self._write(done=False)

    def beat(self) -> bool:
        """Gives a sign of life where the last is long enough ago, and says whether it did."""
        now = time.monotonic()
        is_due = now - self._last_beat >= BEAT_SECONDS
        if is_due:
            self._last_beat = now
            self._beats += 1
            self._write(done=False)
        return is_due

    def leave(self, done: bool) -> None:
        """Ends the run. Where the whole job is done, others at work on it need not doubt what this one did."""
        try:
            if done:
                self._write(done=True)
        except OSError:
            self._folder.remove(self.name)
            raise
        if not done:
            self._folder.remove(self.name)

    def _write(self, done: bool) -> None:
        pid = os.getpid()
        card = {"place": _place(), "pid": pid, "started": _started(pid), "beat": self._beats, "done": done}
        self._folder.write(self.name, json.dumps(card).encode(), os.O_TRUNC)


@dataclass
class _Sight:
    """What was seen of an owner: its file, since when it is so, whether it ever changed, and what it said at first."""

    raw: bytes
    since: float
    changed: bool
    done_at_first: bool


class Witness:
    """Watches the other owners from one process."""

    def __init__(self, folder: OpenFolder) -> None:
        self._folder = folder
        self._seen: dict[str, _Sight] = {}

    def is_gone(self, owner: str, lease: str = "") -> bool:
        """Whether what an owner holds can be taken over, and what it wrote has to be checked. Looks anew.

        Args:
            owner: Its name; empty for one that has not told it yet.
            lease: What such a one is known by instead: the name of the lease that it made.
        """
        try:
            raw = self._folder.read(owner) if owner else b""
        except FileNotFoundError:
            return True
        card = _parse(raw)
        seen = self._look(owner or lease, raw, bool(card.get("done")))
        if card.get("done"):
            return seen.done_at_first
        if card.get("place") == _place() and card.get("started") != _started(card.get("pid")):
            return True
        return time.monotonic() - seen.since > STALE_SECONDS

    def is_at_work(self, owner: str, lease: str = "") -> bool:
        """Whether an owner is there and not through with the job; named as for `is_gone`."""
        return not self.is_gone(owner, lease) and not _parse(self._seen[owner or lease].raw).get("done")

    def others(self) -> list[str]:
        """The owners that are not known to be gone."""
        return [name for name in self._names() if not self.is_gone(name)]

    def at_work(self) -> dict[str, bool]:
        """The owners that may be at work, and of each whether that is known."""
        names = [name for name in self._names() if self.is_at_work(name)]
        return {
            name: self._seen[name].changed or _parse(self._seen[name].raw).get("place") == _place() for name in names
        }

    def _names(self) -> list[str]:
        return [name for name in self._folder.names() if NAME.fullmatch(name)]

    def _look(self, owner: str, raw: bytes, done: bool) -> _Sight:
        now = time.monotonic()
        seen = self._seen.setdefault(owner, _Sight(raw, now, changed=False, done_at_first=done))
        if seen.raw != raw:
            seen.raw, seen.since, seen.changed = raw, now, True
        return seen


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        card = json.loads(raw)
    except ValueError:  # it is being written
        return {}
    return card if isinstance(card, dict) else {}


def _place() -> str | None:
    """Where process ids mean the same: a boot of a machine, and a namespace in it. None where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def _started(pid: Any) -> str | None:
    """When a process started, in ticks since the boot (proc(5): field 22 of stat). None where it runs no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in DEAD_STATES else fields[19]
