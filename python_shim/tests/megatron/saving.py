"""Saving children of a golden parent from a job's live weights."""

from children import GOLDEN, PARENT, child_of

from prunebridge_shim.cluster import save_bands, save_plan
from prunebridge_shim.cluster.save_plan import SaveJob

SIZES = {save_bands: {"BLOCK_BYTES": 3000, "SHARED_BYTES": 2000}, save_plan: {"ROUND_BYTES": 5000}}
"""Module constants that make small children take every path."""


def in_small_blocks():
    for module, sizes in SIZES.items():
        for name, size in sizes.items():
            setattr(module, name, size)


def job_of(folder, case, apart=False, **options):
    shards, sets = child_of(GOLDEN / case["parent"] / PARENT, apart)
    return SaveJob(folder, shards, sets, flush=False, **options)
