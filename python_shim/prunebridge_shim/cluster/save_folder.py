"""The folder that a child is saved into, as the leader has it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

from prunebridge_shim.cluster.exchange import AgreedError
from prunebridge_shim.cluster.save_plan import SaveJob
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.folder import JobFolder
from prunebridge_shim.slicing.leftovers import JOB_FILE
from prunebridge_shim.slicing.opened import OpenFolder
from prunebridge_shim.slicing.room import check_room
from prunebridge_shim.tensors import Tick


class SaveFolder:
    """A job's folder. Nothing goes on from what is in it: weights that were trained on make another child."""

    def __init__(self, job: SaveJob, tick: Tick) -> None:
        self._job = job
        self._tick = tick
        self._stack = ExitStack()
        self._folder: JobFolder | None = None

    def make(self, needed: int) -> str:
        """Makes the folder; gives what tells it from others.

        Args:
            needed: Bytes that are to be written into it.

        Raises:
            ShimError: STORAGE_FULL, and as `JobFolder` does.
            OSError: storage failed.
        """
        identity = f"save {uuid4().hex}"
        waiting = partial(self._tick, 0, needed)
        self._folder = JobFolder(self._job.job_dir, identity, self._job.flush, waiting, self._stack)
        check_room(self._folder.path, needed)
        return identity

    def beat(self) -> None:
        """Shows others that the folder is in use; raises TARGET_BUSY where it is no more."""
        if self._folder is not None:
            self._folder.beat()

    def finish(self) -> str:
        """Leaves the folder to whoever publishes the child in it; gives what tells it from others."""
        if self._folder is None:
            return ""
        if self._job.flush:
            self._folder.sync_child()
        self._folder.check()
        self._folder.leave(done=True, keep=True)
        return self._folder.folder_id

    def abandon(self) -> None:
        """Removes the folder, where it was made."""
        if self._folder is not None:
            with suppress(OSError):  # what failed the save may fail this too
                self._folder.leave(done=False, keep=False)

    def close(self) -> None:
        """Closes what is open of it."""
        self._stack.close()


def open_made(path: Path, identity: str) -> OpenFolder:
    """Opens, on any rank, the folder that the leader has made.

    Raises:
        ShimError: PATH_NOT_FOUND where this rank sees none, or another one.
        OSError: it cannot be opened.
    """
    with suppress(FileNotFoundError), ExitStack() as stack:
        folder = OpenFolder(path)
        stack.callback(folder.close)
        if _identity_in(folder) == identity:
            stack.pop_all()
            return folder
    raise ShimError(
        Reason.PATH_NOT_FOUND,
        f"{path} is not the folder that the job's first rank has made",
        "every rank of the job has to see the target under the same path: name one on shared storage",
    )


def _identity_in(folder: OpenFolder) -> str | None:
    """What tells a folder from others; nothing where its file is torn, or another's."""
    try:
        found: str = json.loads(folder.read(JOB_FILE))["identity"]
    except (ValueError, KeyError, TypeError):
        return None
    return found


@contextmanager
def saving_into(job: SaveJob, tick: Tick) -> Iterator[SaveFolder]:
    """Has a folder to save into, which is gone when the saving fails."""
    folder = SaveFolder(job, tick)
    try:
        yield folder
    except BaseException as error:
        folder.abandon()
        if isinstance(error, AgreedError):
            folder.close()
        # Where a rank is lost, a thread of this one may still be at work with what is open.
        raise
    folder.close()
