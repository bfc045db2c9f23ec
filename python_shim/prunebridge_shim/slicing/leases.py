"""Who does what: each share of a job is held by who first made its lease file."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lease:
    """A share's newest lease: how often it was taken over, and by whom it is held; empty where that is not told yet."""

    generation: int
    owner: str


class Leases:
    """The lease files of a job, `SHARE.GENERATION`. Made and never changed, so that one of several takers wins."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self._held: dict[str, Lease] = {}

    def refresh(self) -> None:
        """Looks at what is held by now."""
        newest: dict[str, int] = {}
        for path in self._folder.iterdir():
            share, generation = path.stem, int(path.suffix[1:])
            newest[share] = max(newest.get(share, 0), generation)
        for share, generation in newest.items():
            known = self._held.get(share)
            if known is None or known.generation < generation or not known.owner:
                self._held[share] = Lease(generation, self._path(share, generation).read_text())

    def holder(self, share: str) -> str | None:
        """Who holds a share; None where nobody ever took it."""
        lease = self._held.get(share)
        return lease.owner if lease else None

    def take(self, share: str) -> bool:
        """Takes a share, from its holder where it has one; False where another was faster."""
        lease = self._held.get(share)
        generation = lease.generation + 1 if lease else 0
        try:
            fd = os.open(self._path(share, generation), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(fd, "w") as file:
            file.write(self._owner)
        self._held[share] = Lease(generation, self._owner)
        return True

    def _path(self, share: str, generation: int) -> Path:
        return self._folder / f"{share}.{generation}"
