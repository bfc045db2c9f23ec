"""The parent's files, held open for a run and watched for changes."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import open_shard
from prunebridge_shim.slicing.opened import naming

Result = TypeVar("Result")


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from the next: its size in bytes, and the time of its last change."""

    size: int
    mtime_ns: int


class SourceFile:
    """An open file of the parent.

    Attributes:
        path: Where it lies.
        fd: The file, open for reading.
        version: What it was when it was opened.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self.fd = self._open()
        self.version = self._version()

    @property
    def inode(self) -> tuple[int, int]:
        """The device and the inode of what is read, whatever its path names by now."""
        found = os.fstat(self.fd)
        return found.st_dev, found.st_ino

    def reopen(self) -> None:
        """Opens the file anew, where its server forgot the open one; raises SOURCE_CHANGED where it is another."""
        self.fd = self._open()
        self.check()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Around reads: has one that meets the file's end raise SOURCE_CHANGED, and another error name the file."""
        try:
            with naming(self.path):
                yield
        except EOFError:
            raise self._changed("was truncated") from None

    def check(self) -> None:
        """Raises SOURCE_CHANGED where the file was written to or truncated."""
        if self._version() != self.version:
            raise self._changed("was written to or truncated")

    def check_path(self) -> None:
        """Raises SOURCE_CHANGED where the path names another file than the one that was read."""
        self.check()
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise self._changed("was removed") from None
        if (found.st_dev, found.st_ino) != self.inode:
            raise self._changed("was replaced")

    def _changed(self, how: str) -> ShimError:
        """The error for a file that did not stay as it was."""
        return ShimError(
            Reason.SOURCE_CHANGED,
            f"{self.path} {how} while it was cut",
            "start again once nothing writes to the parent: what was cut of it is void",
        )

    def _open(self) -> int:
        fd = open_shard(self.path)
        # Closed at the end of the run and not before: another thread may be reading.
        self._stack.callback(os.close, fd)
        return fd

    def _version(self) -> Version:
        found = os.fstat(self.fd)
        return Version(found.st_size, found.st_mtime_ns)


def reopening(work: Callable[[], Result], files: Sequence[Callable[[], None]]) -> Result:
    """Does work, and once more with its files opened anew where a server of files forgot the open ones."""
    try:
        return work()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        for reopen in files:
            reopen()
        return work()


def plain_name(name: str) -> str:
    """Gives back a file name; raises PATH_DENIED where it is more than the name of a file within a folder."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ShimError(Reason.PATH_DENIED, f"{name!r} is no plain file name; shards lie directly in their folder")
    return name
