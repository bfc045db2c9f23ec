"""The common.pt of a torch_dist save: what is not cut over ranks, the training script's arguments among it."""

import io
import zipfile
from collections.abc import Callable, Mapping
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


def edit_common(fd: int, size: int, path: Path, edit: CommonEdit) -> bytes:
    """Reads a common.pt as data, and gives the content of an edited one.

    Raises:
        ShimError: BAD_CHECKPOINT where it is no sound one, or holds objects of classes that such files do not.
    """
    records = read_archive(Archive(fd, 0, size, str(path)))
    common = read_pickle(records.pop(_PICKLE, b""), COMMON_CLASSES, str(path))
    if not isinstance(common, dict):
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} holds no entries by their names", "save the checkpoint again")
    kept = {name: value for name, value in common.items() if name not in edit.left_out}
    arguments = kept.get("args")
    if isinstance(arguments, Record) and isinstance(arguments.state, dict):
        _patch(arguments.state, edit.arguments)
    try:
        return _write_archive({_PICKLE: write_pickle(_written(kept)), **records})
    except (RecursionError, KeyError) as error:
        raise ShimError(
            Reason.BAD_CHECKPOINT, f"{path} holds values that cannot be written again: {error}", "save it again"
        ) from error


def _patch(fields: dict[str, Any], values: Mapping[str, Any]) -> None:
    fields.update({name: value for name, value in values.items() if name in fields})


def _written(value: Any) -> Any:
    """A value that was read as one to be written."""
    if isinstance(value, Record):
        return Made(named(value.name), _written(value.args), _written(value.state), value.called)
    if isinstance(value, type) and issubclass(value, Record):
        return named(value.name)
    return _CONVERTED.get(type(value), lambda plain: plain)(value)


_CONVERTED: Mapping[type, Callable[[Any], Any]] = {
    Persistent: lambda value: Persistent(_written(value.id)),
    dict: lambda value: {_written(key): _written(inner) for key, inner in value.items()},
    tuple: lambda value: tuple(map(_written, value)),
    list: lambda value: list(map(_written, value)),
    set: lambda value: named("__builtin__.set")(list(map(_written, value))),
    bytes: lambda value: named("_codecs.encode")(value.decode("latin1"), "latin1"),
}


def _write_archive(records: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in records.items():
            # Without the time of day: the same content makes the same bytes.
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return out.getvalue()
