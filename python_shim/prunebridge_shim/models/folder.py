"""Checkpoint folders, before anything of them is loaded."""

from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError

CAUSE_CHARACTERS = 400
"""transformers explains itself at length."""


def existing_folder(path: str) -> Path:
    """Gives back a folder that is there; raises PATH_NOT_FOUND."""
    folder = Path(path)
    if not folder.is_dir():
        raise ShimError(Reason.PATH_NOT_FOUND, f"{path} is no folder on this machine", "name a checkpoint folder")
    return folder


def bad_checkpoint(path: str, error: Exception) -> ShimError:
    """The error for a folder that transformers will not load: its cause on one line."""
    cause = f"{type(error).__name__}: {' '.join(str(error).split())}"[:CAUSE_CHARACTERS]
    return ShimError(Reason.BAD_CHECKPOINT, f"{path} cannot be loaded: {cause}", "check that its files are complete")
