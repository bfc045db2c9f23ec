"""Saving children of a golden parent from a job's live weights."""

import resource
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from golden import GOLDEN
from points import cancel_after, no_tick
from sliced_children import PARENT, child_of

from prunebridge_shim.cluster import save_rounds, save_strips, saving
from prunebridge_shim.cluster.save_plan import SaveJob
from prunebridge_shim.slicing.leftovers import PREFIX

SIZES = {save_strips: {"BLOCK_BYTES": 3000, "SHARED_BYTES": 2000}, save_rounds: {"ROUND_BYTES": 5000}}
"""Module constants that make small children take every path."""


def in_small_blocks():
    for module, sizes in SIZES.items():
        for name, size in sizes.items():
            setattr(module, name, size)


def job_of(folder, case, apart=False, **options):
    shards, sets = child_of(GOLDEN / case["parent"] / PARENT, apart, case.get("tied", False))
    return SaveJob(folder, shards, sets, flush=False, **options)


@contextmanager
def limited_files():
    """Has writes behind the first bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def limited_memory():
    """Has a rank have no room beside its model."""
    saving.WORKSPACE_BYTES = 1 << 60
    yield
    saving.WORKSPACE_BYTES = 1 << 20


LIMITS = {"files": limited_files, "memory": limited_memory, "": nullcontext}


def left_by_a_killed_save(folder):
    """What lies in a job's folder whose first rank was killed."""
    (folder / "child").mkdir(parents=True)
    (folder / "child" / "model-00003-of-00003.safetensors").write_bytes(b"half of it")
    (folder / "job.json").write_bytes(PREFIX + b'save 1234"}')


def vain_saves(own, case):
    """Jobs and ticks, of which each has something wrong."""
    job = job_of(own / "child", case)
    if case["limited"]:
        return {case["limited"]: (job, no_tick)}
    name = "decoder.layers.3.mlp.linear_fc2.weight"
    return {
        "nowhere": (with_part(job, name, source_name="decoder.layers.3.mlp.linear_fc3.weight"), no_tick),
        "other shape": (with_part(job, name, shape=(64, 192)), no_tick),
        "other dtype": (with_part(job, name, dtype="BF16"), no_tick),
        "in blocks": (with_part(job, name, axes=("",), blocks=(("",),) * 64), no_tick),
        "outside": (replace(job, sets={**job.sets, "hidden": np.array([3, 64])}), no_tick),
        "cancelled": (job, cancel_after(20_000)),
        "unseen": (replace(job, job_dir=Path("child")), no_tick),
        "no parent folder": (replace(job, job_dir=own / "nowhere" / "child"), no_tick),
    }


def with_part(job, source, **changes):
    """A job of which what is cut from one tensor is another."""

    def changed(tensor):
        parts = (replace(part, **changes) if part.source_name == source else part for part in tensor.parts)
        return replace(tensor, parts=tuple(parts))

    shards = [replace(shard, tensors=tuple(map(changed, shard.tensors))) for shard in job.shards]
    return replace(job, shards=shards)
