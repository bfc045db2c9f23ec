"""A small parent to cut in tiny pieces, and a program that does so as one of several processes.

    python slice_small.py '{"source": ..., "job": ..., "slow": 0.01, "die": {"write": 3, "moment": "torn"}}'

prints what came of it as JSON. It dies by SIGKILL at a write of its journal where it is told to.
"""

import itertools
import json
import os
import re
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from parts import cut_of

from prunebridge_shim.errors import ShimError
from prunebridge_shim.slicing import blocks, crew, cutting, flusher, folder, gathering, owners, pieces
from prunebridge_shim.slicing.headers import build_header
from prunebridge_shim.slicing.journal import Journal
from prunebridge_shim.slicing.request import OutputShard, SliceJob
from prunebridge_shim.slicing.run import slice_shards

SIZES = {
    blocks: {"BLOCK_BYTES": 4096, "SKIP_BYTES": 512},
    gathering: {"RUN_BYTES": 12},
    pieces: {"PIECE_BYTES": 10_000, "STRETCH_BYTES": 40_000},
    owners: {"BEAT_SECONDS": 0.1, "STALE_SECONDS": 3.0},
    crew: {"POLL_SECONDS": 0.05},
    folder: {"LOOK_SECONDS": 0.05},
}
"""Module constants that make small jobs take every path, and soon."""

SHAPES = {"wide": (70, 900), "tall": (900, 70), "norm": (900,), "packed": (4, 60, 90), "empty": (0, 90)}
FILES = ("a.safetensors", "b.safetensors")
# Another thread may go on where a torn line ends, before the kill.
PIECE_LINE = re.compile(rb'\{"piece": \d+, "crc32": \d+\}')

MOMENTS = ("before", "torn", "after")


def write_parent(source, seed=0):
    """Two files of float16 tensors."""
    rng = np.random.default_rng(seed)
    source.mkdir(exist_ok=True)
    for file in FILES:
        arrays = {name: rng.integers(0, 1 << 16, shape, dtype=np.uint16) for name, shape in SHAPES.items()}
        header = build_header({name: ("F16", shape) for name, shape in SHAPES.items()}, {})
        (source / file).write_bytes(header + b"".join(array.tobytes() for array in arrays.values()))


def job_of(source, path, seed=0, **options):
    """Both files cut to three shards."""
    rng = np.random.default_rng(seed)
    sets = {"e": np.array([0, 1, 3])}
    for name, (size, count) in {"w": (900, 700), "s": (70, 50), "i": (60, 45)}.items():
        sets[name] = np.sort(rng.choice(size, count, replace=False))
    axes = {"wide": ("s", "w"), "tall": ("w", ""), "norm": ("w",), "packed": ("e",), "empty": ("", "")}
    slices = [
        cut_of(f"{file[0]}.{name}", file, name, "F16", shape, axes[name], (("i", ""),) * 3 * (name == "packed"))
        for file in FILES
        for name, shape in SHAPES.items()
    ]
    shards = [OutputShard(f"{i}.safetensors", {"format": "pt"}, tuple(slices[i::3])) for i in range(3)]
    return SliceJob(Path(source), Path(path), shards, sets, **options)


def child_of(path):
    """The shards of a job by their names."""
    return {file.name: file.read_bytes() for file in (path / "child").iterdir()}


def journaled(path):
    """Whole lines in the journals of a job that tell of pieces."""
    found = [file.read_bytes().rpartition(b"\n")[0].splitlines() for file in (path / "journals").glob("*")]
    return [json.loads(line) for lines in found for line in lines if PIECE_LINE.fullmatch(line)]


def _die_at(write, moment):
    real, writes = Journal.append, itertools.count(1)

    def append(self, records, flush):
        dies = next(writes) == write
        if not dies or moment != "before":
            real(self, records, flush)
        if dies and moment == "torn":
            path = self._folder.path / self._name
            os.truncate(path, path.stat().st_size - 7)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append


def _slow_down(seconds):
    real = cutting.Cutter.cut

    def cut(self, piece, file):
        time.sleep(seconds)
        return real(self, piece, file)

    cutting.Cutter.cut = cut


def main(source, job, *, seed=0, slow=0.0, die=None, **options):
    for module, constants in SIZES.items():
        for name, value in constants.items():
            setattr(module, name, value)
    if die:
        flusher.UNFLUSHED = 1  # each piece is a write of its own
        _die_at(**die)
    place = options.pop("place", None)
    if place:
        owners._place = lambda: place
    _slow_down(slow)
    try:
        outcome = asdict(slice_shards(job_of(source, job, seed, **options), lambda *_: None))
    except ShimError as error:
        outcome = {"reason": error.reason.name, "message": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(outcome, default=bytes.hex))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
