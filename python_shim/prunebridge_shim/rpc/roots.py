"""The folders that requests may name paths in."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.leftovers import CHILD

PATHS: Mapping[str, tuple[str, ...]] = {
    "open_model": ("path",),
    "tokenize": ("path",),
    "slice": ("source_dir", "job_dir"),
    "save_model": ("job_dir",),
    "open_network": ("built.weights_path", "checkpoint_dir", "pruned_dir"),
    "save_network": ("job_dir",),
}
"""The fields of each kind of work that are paths, within its messages too."""

INDEX_SUFFIX = ".index.json"


class Roots:
    """Folders that paths must lie in once symlinks and `..` are followed; without any, all that the process may use."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Raises PATH_NOT_FOUND for a root that is no folder."""
        missing = [folder for folder in folders if not folder.is_dir()]
        if missing:
            raise ShimError(Reason.PATH_NOT_FOUND, f"the root {missing[0]} is no folder", "create it, or name another")
        self._folders = tuple(Path(os.path.realpath(folder)) for folder in folders)

    def confine(self, kind: str, work: Any) -> None:
        """Puts what they resolve to in the place of a request's paths.

        Files within the folders are followed too: they may be symlinks, and an index may name others.

        Raises:
            ShimError: PATH_DENIED for what lies outside of the roots, INVALID_REQUEST for no path at all.
        """
        if not self._folders:
            return
        for message, field in _given(kind, work):
            folder = self._resolve(getattr(message, field))
            setattr(message, field, str(folder))
            for file in _files_of(folder):
                self._resolve(str(file))
        if kind in {"slice", "save_model", "save_network"}:
            self._resolve(str(Path(work.job_dir).parent))  # the folder is renamed before it is removed
        if kind == "slice":
            for file in _entries(Path(work.job_dir, CHILD, work.torch_dist.folder)):
                self._resolve(str(file))
            for name in {
                part.source_file for shard in work.shards for tensor in shard.tensors for part in tensor.parts
            }:
                self._resolve(f"{work.source_dir}/{name}")

    def _resolve(self, given: str) -> Path:
        if not given or "\0" in given:
            raise ShimError(Reason.INVALID_REQUEST, f"{given!r} is no path", "name a folder of the shim's machine")
        # Of a path that is not there yet, this resolves what is.
        path = Path(os.path.realpath(given))
        if not any(path.is_relative_to(root) for root in self._folders):
            raise ShimError(
                Reason.PATH_DENIED,
                f"{given} does not lie within {' or '.join(map(str, self._folders))}",
                "name a path within these roots, or start the shim with another --root; symlinks are followed",
            )
        return path


def _given(kind: str, work: Any) -> Iterator[tuple[Any, str]]:
    """The fields that are paths, with the messages that have them; what a request leaves out as it may is none."""
    for path in PATHS.get(kind, ()):
        *outer, field = path.split(".")
        message = work
        for name in outer:
            message = getattr(message, name) if message.HasField(name) else None
        if message is None:
            continue
        is_optional = bool(outer) or message.DESCRIPTOR.fields_by_name[field].has_presence
        if getattr(message, field) or not is_optional:
            yield message, field


def _files_of(folder: Path) -> Iterator[Path]:
    """What lies in a folder and in those within it, and what its indexes say does."""
    for file in _entries(folder):
        yield file
        yield from _entries(file)
        if file.name.endswith(INDEX_SUFFIX):
            yield from (folder / name for name in _indexed(file))


def _entries(folder: Path) -> Iterable[Path]:
    # Others at work on a job remove what is theirs.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return ()


def _indexed(file: Path) -> Iterable[str]:
    try:
        return {str(name) for name in json.loads(file.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()  # whoever loads it says what is wrong with it
