"""What lies in a job's folder, and how no more than that is removed."""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.opened import OpenFolder

CHILD = "child"
JOB_FILE = "job.json"
PARTS = (CHILD, "owners", "leases", "journals")
PREFIX = b'{"format": "prunebridge.slice-job/1", "identity": "'
"""How a job's file begins."""

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A file that is about to be put into the child by who publishes it."""

IGNORED = re.compile(r"\.nfs[0-9a-f]+|\.DS_Store")
"""What systems put into any folder. It is not a job's, and not removed."""


def check_is_jobs(folder: OpenFolder) -> None:
    """Raises INVALID_REQUEST where a folder holds anything that is no job's: it may come to be removed."""
    names = folder.names()
    strange = [name for name in names if not _is_known(name)]
    filled = [part for part in PARTS if part in names and _is_filled(part, folder)]
    # Looked for last: it is made before the folders are filled.
    if JOB_FILE in folder.names():
        raw = folder.read(JOB_FILE)
        if not (raw.startswith(PREFIX) or PREFIX.startswith(raw)):  # it may be torn
            strange.append(f"a {JOB_FILE} of something else")
    elif filled and folder.is_there:
        strange.append(f"{filled[0]} and no {JOB_FILE}")
    if strange:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{folder.path} holds {min(strange)}: it is no slicing job's folder",
            "name a folder that does not exist",
        )


def remove_leftovers(path: Path) -> None:
    """Removes the folders that were renamed out of the way of a job's, as far as what they hold is a job's."""
    discarded = re.compile(rf"{re.escape(path.name)}\.discarded-[0-9a-f-]{{32,36}}")
    for entry in path.parent.iterdir():
        if discarded.fullmatch(entry.name) and not entry.is_symlink():
            _remove(entry)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # another process may be removing it too
        temporary = [entry.name for entry in folder.iterdir() if TEMPORARY.fullmatch(entry.name)]
        for part in PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)
        for name in (*temporary, JOB_FILE):  # last what tells whose it was
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _is_known(name: str) -> bool:
    return name in (*PARTS, JOB_FILE) or bool(TEMPORARY.fullmatch(name) or IGNORED.fullmatch(name))


def _is_filled(part: str, within: OpenFolder) -> bool:
    try:
        folder = OpenFolder(Path(part), within)
    except NotADirectoryError:
        return True
    try:
        return bool(folder.names())
    finally:
        folder.close()
