"""Whether a job's folder and its parent's lie apart: what is made and removed of one is to be nothing of the other."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError


def check_apart(job_dir: Path, source_dir: Path, files: Iterable[Path]) -> None:
    """Follows symlinks and `..`, and knows a folder under another name.

    Args:
        job_dir: The job's folder, there or not.
        source_dir: The parent's folder.
        files: The parent's files that are read.

    Raises:
        ShimError: PATH_DENIED where one lies within the other.
    """
    source = source_dir.stat()
    if any(os.path.samestat(source, found) for found in _upwards(job_dir)):
        raise _denied(f"{job_dir} lies within the parent's folder {source_dir}")
    if not job_dir.is_dir():
        return
    target = job_dir.stat()
    for path in (source_dir, *files):
        if any(os.path.samestat(target, found) for found in _upwards(path)):
            raise _denied(f"{path} lies within the job's folder {job_dir}")


def _upwards(path: Path) -> Iterator[os.stat_result]:
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        if folder.exists():
            yield folder.stat()


def _denied(message: str) -> ShimError:
    return ShimError(Reason.PATH_DENIED, message, "name a job's folder apart from it: the parent is never changed")
