"""Who does what: each share of a job is held by who first made its lease file."""

import os
import re
from dataclasses import dataclass, replace

from prunebridge_shim.slicing.opened import OpenFolder

NAME = re.compile(r"((?:shard-)?\d+)\.(\d+)")


@dataclass(frozen=True)
class Lease:
    """A share's newest lease: how often it was taken over, and by whom it is held; empty where that is not told yet."""

    share: str
    generation: int
    owner: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.share}.{self.generation}"


class Leases:
    """The lease files of a job, `SHARE.GENERATION`. Made and never changed, so that one of several takers wins."""

    def __init__(self, folder: OpenFolder, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self._held: dict[str, Lease] = {}

    def refresh(self) -> None:
        """Looks at what is held by now."""
        newest: dict[str, int] = {}
        for share, generation in [found.groups() for found in map(NAME.fullmatch, self._folder.names()) if found]:
            newest[share] = max(newest.get(share, 0), int(generation))
        for share, generation in newest.items():
            known = self._held.get(share)
            if known is None or known.generation < generation or not known.owner:
                self._held[share] = self._read(Lease(share, generation, ""))

    def of(self, share: str) -> Lease | None:
        """A share's lease; None where nobody ever took it."""
        return self._held.get(share)

    def take(self, share: str) -> bool:
        """Takes a share, from its holder where it has one; False where another was faster."""
        lease = self._held.get(share)
        mine = Lease(share, lease.generation + 1 if lease else 0, self._owner)
        try:
            self._folder.write(mine.name, mine.owner.encode(), os.O_EXCL)
        except FileExistsError:
            return False
        self._held[share] = mine
        return True

    def _read(self, lease: Lease) -> Lease:
        return replace(lease, owner=self._folder.read(lease.name).decode())
