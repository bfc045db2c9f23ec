"""A job's own folder: who may work in it, and what is left of it.

job.json            what is cut from what
child/              the shards
owners/, leases/    who is at work, and on what
journals/           what is done
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing import owners
from prunebridge_shim.slicing.journal import Journal, Journals
from prunebridge_shim.slicing.leases import Leases
from prunebridge_shim.slicing.leftovers import CHILD, JOB_FILE, PARTS, PREFIX, check_is_jobs, remove_leftovers
from prunebridge_shim.slicing.opened import OpenFolder
from prunebridge_shim.slicing.owners import Owner, Witness

LOOK_SECONDS = 0.2


class JobFolder:
    """A job's folder, and this process's place in it. All is done by descriptors: once removed, it stays removed.

    Args:
        path: The folder, made where it is missing.
        identity: What tells the job from others; what another one left is removed.
        flush: Whether it is on the disk that the folder is this job's.
        tick: Told while it is waited for what others do; may raise to end that.
        stack: Closes the folder in the end.

    Attributes:
        open: The open folder, whatever its path names by now.
        folder_id: Tells it from every other that is ever made under its path.

    Raises:
        ShimError: TARGET_BUSY where another job is being cut in the folder, INVALID_REQUEST where it is no job's.
        OSError: storage failed.
    """

    open: OpenFolder
    folder_id: str

    def __init__(self, path: Path, identity: str, flush: bool, tick: Callable[[], None], stack: ExitStack) -> None:
        self.path = path
        self._identity = identity
        self._flush = flush
        self._tick = tick
        self._places = [CHILD]
        remove_leftovers(path)
        while True:
            with ExitStack() as attempt:
                if self._enter(attempt):
                    stack.push(attempt.pop_all())
                    return
            tick()

    def beat(self) -> None:
        """Gives a sign of life now and then; raises TARGET_BUSY where the folder is no more."""
        if self.owner.beat():
            self.check()

    def check(self) -> None:
        """Raises TARGET_BUSY where the folder was removed meanwhile."""
        if not self.open.is_there:
            raise self.removed()

    def removed(self) -> ShimError:
        """The error for a folder that is no more."""
        return ShimError(
            Reason.TARGET_BUSY,
            f"the job in {self.path} was removed meanwhile: another took its place, or its child was published",
            "look what is there; run the same again where it is not what was wanted",
        )

    def make_within(self, name: str) -> str:
        """Makes the folder within the child that its files lie in; gives its path within the job's.

        Args:
            name: Empty for the child's own.
        """
        if name:
            self._places.append(f"{CHILD}/{name}")
            self.open.make(self._places[-1])
        return self._places[-1]

    def write_beside(self, files: Mapping[str, bytes]) -> None:
        """Puts files beside the shards, in order, each in one step over one that another process put there."""
        for name, content in files.items():
            temporary = f".{name}.{uuid4()}"
            self.open.write(temporary, content, os.O_EXCL, self._flush)
            self.open.rename(temporary, f"{self._places[-1]}/{name}")
        if files and self._flush:
            self.sync_child()

    def sync_child(self) -> None:
        """Puts the entries of the folders of the shards on the disk."""
        for place in self._places:
            folder = OpenFolder(Path(place), self.open)
            try:
                folder.sync()
            finally:
                folder.close()

    def leave(self, done: bool, keep: bool) -> None:
        """Ends this process's part; what is not to be kept is removed, unless others are at work on it.

        Args:
            done: Whether the whole job was.
            keep: Whether the folder is of use to whoever goes on with it.
        """
        self.owner.leave(done)
        if not keep and not self.witness.others():
            self._discard()

    def _enter(self, attempt: ExitStack) -> bool:
        """Takes a place in the folder; False where it was removed meanwhile, by this process or another."""
        try:
            self.path.mkdir(exist_ok=True)
            self.open = _closing(attempt, OpenFolder(self.path))
            self._make()
            if not self._is_ours():
                self._remove_other(attempt)
                return False
            self._register(attempt)
            try:
                if self.open.is_there and self._is_ours():
                    return True
            except BaseException:
                self.owner.leave(done=False)
                raise
            self.owner.leave(done=False)
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise
        return False

    def _register(self, attempt: ExitStack) -> None:
        parts = {part: _closing(attempt, OpenFolder(Path(part), self.open)) for part in PARTS if part != CHILD}
        self.witness = Witness(parts["owners"])
        self.journals = Journals(parts["journals"])
        self.owner = Owner(parts["owners"])
        self.leases = Leases(parts["leases"], self.owner.name)
        self.journal = Journal(parts["journals"], self.owner.name)

    def _make(self) -> None:
        check_is_jobs(self.open)
        for part in PARTS:  # a child that was published is missing
            self.open.make(part)
        try:
            content = PREFIX + f'{self._identity}", "folder": "{uuid4().hex}"}}'.encode()
            self.open.write(JOB_FILE, content, os.O_EXCL, self._flush)
        except FileExistsError:
            return
        if self._flush:
            self.open.sync()

    def _is_ours(self) -> bool:
        identity, self.folder_id = self._read_job()
        return identity == self._identity and self.folder_id != ""

    def _read_job(self) -> tuple[str, str]:
        """Whose folder it is, and which; empty where that was never told."""
        deadline = time.monotonic() + owners.STALE_SECONDS
        while True:
            try:
                found = json.loads(self.open.read(JOB_FILE))
                return str(found["identity"]), str(found.get("folder", ""))
            except (ValueError, KeyError, TypeError, AttributeError):  # it is being written, or its writer was killed
                if time.monotonic() > deadline:
                    return "", ""
            self._tick()
            time.sleep(LOOK_SECONDS)

    def _remove_other(self, attempt: ExitStack) -> None:
        """Removes what another job left, once nobody is seen to be at work on it."""
        witness = Witness(_closing(attempt, OpenFolder(Path("owners"), self.open)))
        while others := witness.at_work():
            if any(others.values()):
                raise ShimError(
                    Reason.TARGET_BUSY,
                    f"another job is being cut in {self.path}",
                    "wait for its end or stop it, or name another target",
                )
            self._tick()
            time.sleep(LOOK_SECONDS)
            if not self.open.is_there:  # another process was faster
                return
        self._discard()

    def _discard(self) -> None:
        """Takes the folder out of everybody's way in one step, and removes it."""
        if not self.open.is_there:
            return
        aside = self.path.with_name(f"{self.path.name}.discarded-{uuid4().hex}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        remove_leftovers(self.path)


def _closing(stack: ExitStack, folder: OpenFolder) -> OpenFolder:
    stack.callback(folder.close)
    return folder
