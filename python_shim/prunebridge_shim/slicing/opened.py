"""A folder by its descriptor: what is done in it stays in it, whatever its path names by then."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class OpenFolder:
    """A folder held open until `close`; names are relative to it.

    Args:
        path: Where it lies when it is opened.
        within: The open folder that `path` is relative to, if any.

    Attributes:
        path: Where it lay.
        fd: Its descriptor.
    """

    def __init__(self, path: Path, within: "OpenFolder | None" = None) -> None:
        self.path: Path = within.path / path if within else path
        with naming(self.path):
            self.fd: int = os.open(path, FOLDER, dir_fd=within.fd if within else None)

    @property
    def is_there(self) -> bool:
        """Whether its path still names it."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """What lies in it."""
        with naming(self.path), os.scandir(self.fd) as entries:
            return [entry.name for entry in entries]

    def make(self, name: str) -> None:
        """Makes a folder in it, unless it is there."""
        with naming(self.path / name):
            try:
                os.mkdir(name, dir_fd=self.fd)
            except FileExistsError:
                return

    def open(self, name: str, flags: int) -> int:
        """Opens a file in it, with the modes that the umask leaves."""
        with naming(self.path / name):
            return os.open(name, flags | os.O_CLOEXEC, 0o666, dir_fd=self.fd)

    def read(self, name: str, offset: int = 0) -> bytes:
        """The bytes of a file from an offset on."""
        with naming(self.path / name), os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            file.seek(offset)
            return file.read()

    def write(self, name: str, data: bytes, flags: int, flush: bool = False) -> None:
        """Opens a file, writes to it and closes it: that is when file servers pass on what was written."""
        with naming(self.path / name), os.fdopen(self.open(name, flags | os.O_WRONLY | os.O_CREAT), "wb") as file:
            file.write(data)
            file.flush()
            if flush:
                os.fsync(file.fileno())

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with naming(self.path / name):
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                return

    def rename(self, name: str, new_name: str) -> None:
        """Gives a file in it another name, in the place of the file that has that."""
        with naming(self.path / new_name):
            os.rename(name, new_name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def sync(self) -> None:
        """Puts its entries on the disk."""
        with naming(self.path):
            os.fsync(self.fd)

    def close(self) -> None:
        """Closes it; it is not used any more."""
        os.close(self.fd)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has errors of open files say which file they were about."""
    try:
        yield
    except OSError as error:
        if not error.filename or not Path(error.filename).is_absolute():
            error.filename = str(path)
        raise
