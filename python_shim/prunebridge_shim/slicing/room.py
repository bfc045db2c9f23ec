"""Whether a disk has room for what is to be written."""

import shutil
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError


def check_room(folder: Path, needed: int) -> None:
    """Raises STORAGE_FULL where so many bytes do not fit into a folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ShimError(
            Reason.STORAGE_FULL,
            f"{needed:,} bytes are left to write and {folder} has {free:,} free",
            "free some space, or name another target",
        )
