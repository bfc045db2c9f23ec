"""The common.pt of a torch_dist save: what is not cut over ranks, the training script's arguments among it."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.request import CommonEdit
from prunebridge_shim.slicing.torch_dist_archive import Archive, read_archive
from prunebridge_shim.slicing.torch_dist_names import COMMON_CLASSES
from prunebridge_shim.slicing.torch_dist_pickle import Persistent, Record, read_pickle
from prunebridge_shim.slicing.torch_dist_pickling import Made, named, write_pickle

COMMON_FILE = "common.pt"
_PICKLE = "data.pkl"
_SHARED = 1 << 20
"""How much larger than its pickle a value may be once what is shared in it is written wherever it occurs."""


def edit_common(fd: int, size: int, path: Path, edit: CommonEdit) -> bytes:
    """Reads a common.pt as data, and gives the content of an edited one.

    Raises:
        ShimError: BAD_CHECKPOINT where it is no sound one, or holds objects of classes that such files do not.
    """
    records = read_archive(Archive(fd, 0, size, str(path)))
    pickled = records.pop(_PICKLE, b"")
    common = read_pickle(pickled, COMMON_CLASSES, str(path))
    if not isinstance(common, dict):
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} holds no entries by their names", "save the checkpoint again")
    kept = {name: value for name, value in common.items() if name not in edit.left_out}
    arguments = kept.get("args")
    if isinstance(arguments, Record) and isinstance(arguments.state, dict):
        _patch(arguments.state, edit.arguments)
    try:
        return _write_archive({_PICKLE: write_pickle(_Writing(len(pickled) + _SHARED).written(kept)), **records})
    except (RecursionError, KeyError, OverflowError) as error:
        raise ShimError(
            Reason.BAD_CHECKPOINT, f"{path} holds values that cannot be written again: {error}", "save it again"
        ) from error


def _patch(fields: dict[str, Any], values: Mapping[str, Any]) -> None:
    fields.update({name: value for name, value in values.items() if name in fields})


class _Writing:
    """Makes of values that were read such as are to be written: `room` of them, texts by their lengths."""

    def __init__(self, room: int) -> None:
        self._room = room

    def written(self, value: Any) -> Any:
        """Converts a value; raises OverflowError where there is no room left."""
        self._room -= max(1, len(value)) if isinstance(value, str | bytes) else 1
        if self._room < 0:
            raise OverflowError("they hold one another too many times")
        if isinstance(value, Record):
            return Made(named(value.name), self.written(value.args), self.written(value.state), value.called)
        if isinstance(value, type) and issubclass(value, Record):
            return named(value.name)
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        match value:
            case Persistent():
                return Persistent(self.written(value.id))
            case dict():
                return {self.written(key): self.written(inner) for key, inner in value.items()}
            case tuple() | list():
                return type(value)(map(self.written, value))
            case set():
                return named("__builtin__.set")(list(map(self.written, value)))
            case bytes():
                return named("_codecs.encode")(value.decode("latin1"), "latin1")
        return value


def _write_archive(records: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in records.items():
            # Without the time of day: the same content makes the same bytes.
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return out.getvalue()
