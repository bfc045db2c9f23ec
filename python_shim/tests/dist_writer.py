"""Writes folders in Megatron's torch_dist format, box after box, without any of Megatron's code."""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from prunebridge_shim.slicing.torch_dist_frame import Frame
from prunebridge_shim.slicing.torch_dist_pickling import write_pickle
from prunebridge_shim.slicing.torch_dist_records import Box, DescribedTensor
from prunebridge_shim.slicing.torch_dist_save import BACKEND, Save


class DistWriter:
    """A save whose tensors go into one file, or with `next_file` into several."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.save = Save()
        self.files = [b""]

    def next_file(self):
        self.files.append(b"")

    def add(self, key, dtype, shape, box, raw):
        frame = Frame(dtype, box.sizes)
        self.add_archive(key, dtype, shape, box, frame.head + raw + frame.tail(zlib.crc32(raw)))

    def add_archive(self, key, dtype, shape, box, content):
        """Adds a box of a tensor as another writer archives it."""
        self.save.tensors.setdefault(key, DescribedTensor(dtype, shape)).chunks[box] = None
        place = {"relative_path": f"__{len(self.files) - 1}_0.distcp", "offset": len(self.files[-1])}
        self.save.place(key, box.offsets, {**place, "length": len(content)})
        self.files[-1] += content

    def finish(self, common):
        for number, content in enumerate(self.files):
            (self.folder / f"__{number}_0.distcp").write_bytes(content)
        (self.folder / "common.pt").write_bytes(archive(write_pickle(common)))
        (self.folder / ".metadata").write_bytes(self.save.metadata())
        (self.folder / "metadata.json").write_text(json.dumps(BACKEND))
        return self.folder


def archive(pickled, storages=()):
    """What torch.save makes of an object, by its pickle and the raw bytes of its storages."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("common/data.pkl", pickled)
        made.writestr("common/version", b"3\n")
        made.writestr("common/byteorder", b"little")
        for number, raw in enumerate(storages):
            made.writestr(f"common/data/{number}", raw)
    return out.getvalue()


def share(pickled, levels=22):
    """A pickle with a list in place of the text "SHARED": one that holds twice one that holds twice one, and so on."""
    get = [b"j" + struct.pack("<I", level) for level in range(levels)]
    put = [b"r" + struct.pack("<I", level) for level in range(levels)]
    lists = b"]" + put[0] + b"".join(b"](" + below * 2 + b"e" + own for below, own in zip(get, put[1:], strict=False))
    return pickled[:2] + lists + pickled[2:].replace(write_pickle("SHARED")[2:-1], get[-1])


def write_folder(folder, tensors, files=1):
    """Writes a save of (key, dtype, whole array, boxes), spread over files box by box."""
    writer = DistWriter(folder)
    boxes = [(tensor, box) for tensor in tensors for box in tensor[3]]
    for at, ((key, dtype, array, _), box) in enumerate(boxes):
        if at * files // len(boxes) >= len(writer.files):
            writer.next_file()
        part = array[tuple(slice(at, at + size) for at, size in zip(box.offsets, box.sizes, strict=True))]
        writer.add(key, dtype, array.shape, box, np.ascontiguousarray(part).tobytes())
    return writer.finish({"iteration": 3})


def whole_box(array):
    return [Box((0,) * array.ndim, array.shape)]
