"""What is done: each process appends to a journal of its own, and reads those of the others."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from prunebridge_shim.slicing.opened import OpenFolder

JSONL = ".jsonl"
NAME = re.compile(rf"([0-9a-f]{{32}}){re.escape(JSONL)}")


@dataclass(frozen=True)
class Finished:
    """A shard that is whole: the CRC-32 of its file, and its SHA-256 where that was asked for."""

    crc32: int
    sha256: bytes = b""


@dataclass
class Records:
    """What one owner's journal says: the CRC-32 of each piece, and the shards that it finished, by their numbers."""

    pieces: dict[int, int] = field(default_factory=dict)
    shards: dict[int, Finished] = field(default_factory=dict)


class Journal:
    """This process's journal, for any thread. Made with its first lines."""

    def __init__(self, folder: OpenFolder, owner: str) -> None:
        self._folder = folder
        self._name = f"{owner}{JSONL}"
        self._lock = Lock()

    def append(self, records: Records, flush: bool) -> None:
        """Appends lines; with `flush` they are on the disk when it returns."""
        lines: list[dict[str, Any]] = [{"piece": number, "crc32": crc} for number, crc in records.pieces.items()]
        for number, shard in records.shards.items():
            lines.append({"shard": number, "crc32": shard.crc32, "sha256": shard.sha256.hex()})
        with self._lock:
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            self._folder.write(self._name, text.encode(), os.O_APPEND, flush)


class Journals:
    """All journals of a job's folder as far as they were read."""

    def __init__(self, folder: OpenFolder) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._records: dict[str, Records] = {}

    def refresh(self) -> None:
        """Reads what was appended meanwhile."""
        for owner, name in [(found[1], found[0]) for found in map(NAME.fullmatch, self._folder.names()) if found]:
            # A line without an end was torn by a kill, or is being written.
            whole, end, _ = self._folder.read(name, self._read.get(owner, 0)).rpartition(b"\n")
            self._read[owner] = self._read.get(owner, 0) + len(whole) + len(end)
            records = self._records.setdefault(owner, Records())
            for line in whole.splitlines():
                _take_in(line, records)

    @property
    def records(self) -> Mapping[str, Records]:
        """What each owner's journal says."""
        return self._records


def _take_in(line: bytes, records: Records) -> None:
    # What a crash of the machine made illegible is cut again.
    with suppress(ValueError, KeyError, TypeError):
        entry = json.loads(line)
        if "piece" in entry:
            records.pieces[entry["piece"]] = entry["crc32"]
        else:
            records.shards[entry["shard"]] = Finished(entry["crc32"], bytes.fromhex(entry["sha256"]))
