"""A job's own folder: who may work in it, and what is left of it.

job.json            what is cut from what
child/              the shards
owners/, leases/    who is at work, and on what
journals/           what is done
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing import owners
from prunebridge_shim.slicing.journal import Journal, Journals
from prunebridge_shim.slicing.leases import Leases
from prunebridge_shim.slicing.owners import Owner, Witness

JOB_FILE = "job.json"
PARTS = ("child", "owners", "leases", "journals")
LOOK_SECONDS = 0.2


class JobFolder:
    """A job's folder, and this process's place in it.

    Args:
        path: The folder, made where it is missing.
        identity: What tells the job from others; what another one left is removed.
        tick: Told while it is waited for what others do; may raise to end that.

    Raises:
        ShimError: TARGET_BUSY where another job is being cut in the folder, INVALID_REQUEST where it is no job's.
        OSError: storage failed.
    """

    def __init__(self, path: Path, identity: str, tick: Callable[[], None]) -> None:
        self.path = path
        self._identity = identity
        self._tick = tick
        self._clear_discarded()
        while not self._enter():
            tick()

    @property
    def child(self) -> Path:
        """The folder of the shards."""
        return self.path / "child"

    def leave(self, done: bool, keep: bool) -> None:
        """Ends this process's part; what is not to be kept is removed, unless others are at work on it.

        Args:
            done: Whether the whole job was.
            keep: Whether the folder is of use to whoever goes on with it.
        """
        self.owner.leave(done)
        if not keep and not self.witness.others():
            self._discard()

    def _enter(self) -> bool:
        """Takes a place in the folder; False where it was removed meanwhile, by this process or another."""
        try:
            self._make()
            if not self._is_ours():
                self._remove_other()
                return False
            self._register()
            if self._is_ours():
                return True
            self.owner.leave(done=False)
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise
        return False

    def _register(self) -> None:
        self.owner = Owner(self.path / "owners")
        self.witness = Witness(self.path / "owners")
        self.leases = Leases(self.path / "leases", self.owner.name)
        self.journal = Journal(self.path / "journals", self.owner.name)
        self.journals = Journals(self.path / "journals")

    def _make(self) -> None:
        self.path.mkdir(exist_ok=True)
        found = {entry.name for entry in self.path.iterdir()}
        strange = sorted(found - set(PARTS))
        if strange and JOB_FILE not in found:
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"{self.path} holds {strange[0]} and no {JOB_FILE}: it is no slicing job's folder",
                "name a folder that does not exist",
            )
        for part in PARTS:  # a child that was published is missing
            (self.path / part).mkdir(exist_ok=True)
        try:
            with (self.path / JOB_FILE).open("x") as file:
                file.write(json.dumps({"format": "prunebridge.slice-job/1", "identity": self._identity}))
        except FileExistsError:
            return

    def _is_ours(self) -> bool:
        return self._read_identity() == self._identity

    def _read_identity(self) -> str | None:
        """Whose folder it is; None where that was never told."""
        deadline = time.monotonic() + owners.STALE_SECONDS
        while True:
            try:
                found = json.loads((self.path / JOB_FILE).read_text())
                return str(found["identity"])
            except (ValueError, KeyError, TypeError):  # it is being written, or its writer was killed
                if time.monotonic() > deadline:
                    return None
            self._tick()
            time.sleep(LOOK_SECONDS)

    def _remove_other(self) -> None:
        """Removes what another job left, once nobody is seen to be at work on it."""
        witness = Witness(self.path / "owners")
        while others := witness.others():
            if any(others.values()) and not self._is_ours():
                raise ShimError(
                    Reason.TARGET_BUSY,
                    f"another job is being cut in {self.path}",
                    "wait for its end or stop it, or name another target",
                )
            self._tick()
            time.sleep(LOOK_SECONDS)
            if self._is_ours():  # another process of this job was faster
                return
        self._discard()

    def _discard(self) -> None:
        """Takes the folder out of everybody's way in one step, and removes it."""
        try:
            self.path.rename(self.path.with_name(f"{self.path.name}.discarded-{uuid4().hex}"))
        except FileNotFoundError:
            return
        self._clear_discarded()

    def _clear_discarded(self) -> None:
        for entry in self.path.parent.iterdir():
            if entry.name.startswith(f"{self.path.name}.discarded-"):
                shutil.rmtree(entry, ignore_errors=True)
