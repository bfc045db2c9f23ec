"""Requests near good ones, from seeds: each is cut, or refused before anything is written."""

import os

import numpy as np
import pytest
from parts import cut_of
from safetensors import deserialize

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import build_header, open_shard
from prunebridge_shim.slicing.request import OutputShard, SliceJob, index_sets_of
from prunebridge_shim.slicing.run import WrittenShard, slice_shards
from prunebridge_shim.tensors import HostTensor, byte_length

SEEDS = 40
REQUESTS = 50
STORED = {
    "a": ("F32", (4, 6)),
    "b": ("BF16", (3, 2, 4)),
    "c": ("U8", ()),
    "d": ("F4", (2, 4)),
    "e": ("F6_E2M3", (8,)),
    "f": ("I64", (5, 0)),
}
NAMES = [
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "x\0y",
    "__proto__",
    "é漢",
    "x" * 300,
    "none",
    "in.safetensors",
    "fifo",
]
NUMBERS = [-(2**63), -1, 0, 1, 2, 3, 5, 2**31, 2**53, 2**63 - 1]
EXPECTED = {Reason.BAD_TENSOR, Reason.INVALID_REQUEST, Reason.PATH_DENIED}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    data = b"".join(bytes(range(byte_length(*info))) for info in STORED.values())
    (folder / "in.safetensors").write_bytes(build_header(STORED, {}) + data)
    return folder


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def one_in(rng, n):
    return rng.integers(n) == 0


def some_set(rng, size):
    if one_in(rng, 12):
        return np.array([pick(rng, NUMBERS) for _ in range(int(rng.integers(4)))], np.int64)
    most = min(max(size, 1), 8)
    return np.sort(rng.choice(most, int(rng.integers(1, most + 1)), replace=False)).astype(np.int64)


def some_request(rng):
    """A shard's tensors and the index sets that they name, good but for a few places."""
    sets, tensors = {}, []

    def axis(size):
        if one_in(rng, 2):
            return ""
        name = pick(rng, NAMES) if one_in(rng, 30) else f"s{len(sets)}"
        if not one_in(rng, 30):
            sets[name] = HostTensor("I32" if one_in(rng, 60) else "I64", some_set(rng, size))
        return name

    for index in range(int(rng.integers(1, 3))):
        stored = pick(rng, list(STORED))
        dtype, shape = STORED[stored]
        if one_in(rng, 30):
            shape = (*shape, pick(rng, NUMBERS))
        axes, blocks = tuple(map(axis, shape)), ()
        if shape and one_in(rng, 4):
            axes = axes[:1]
            count = len(sets[axes[0]].array) if axes[0] in sets else shape[0]
            count = min(count, 6) + (1 if one_in(rng, 20) else 0)
            blocks = tuple(tuple(map(axis, shape[1:])) for _ in range(count))
        file = pick(rng, NAMES) if one_in(rng, 30) else "in.safetensors"
        name = pick(rng, [*NAMES, "out0"]) if one_in(rng, 20) else f"out{index}"
        tensors.append(cut_of(name, file, stored, dtype, shape, axes, blocks))
    file = pick(rng, NAMES) if one_in(rng, 30) else "out.safetensors"
    return OutputShard(file, {"format": "pt"}, tuple(tensors)), sets


def cut(source, target, shard, sets):
    """The written shard, or the error that the request ended in."""
    try:
        job = SliceJob(source, target, [shard], index_sets_of(sets), flush=False)
        return slice_shards(job, lambda *_: None).shards[0]
    except (ShimError, OSError) as error:
        return error


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_request_is_cut_or_refused(source, tmp_path, seed):
    rng = np.random.default_rng(seed)
    cuts = 0
    for request in range(REQUESTS):
        target = tmp_path / f"target{request}"
        shard, sets = some_request(rng)
        result = cut(source, target, shard, sets)
        if isinstance(result, WrittenShard):
            content = (target / "child" / result.file).read_bytes()
            assert len(content) == result.size
            assert {name for name, _ in deserialize(content)} == {tensor.name for tensor in shard.tensors}
            cuts += 1
            continue
        assert not target.exists()
        if not isinstance(result, ShimError) or result.reason is Reason.STORAGE_FAILED:
            files = [shard.file, *(part.source_file for tensor in shard.tensors for part in tensor.parts)]
            assert any(file not in {"in.safetensors", "out.safetensors"} for file in files), result
        else:
            assert result.reason in EXPECTED, result
    assert cuts > REQUESTS // 10


def test_what_is_no_regular_file_is_not_waited_for(source):
    os.mkfifo(source / "fifo")
    for name in ["fifo", "."]:
        with pytest.raises(ShimError, match="no regular file") as caught:
            open_shard(source / name)
        assert caught.value.reason is Reason.BAD_TENSOR
