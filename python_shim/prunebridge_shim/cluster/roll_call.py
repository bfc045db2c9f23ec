"""Waits until all ranks of a job have come, and says which have not."""

import itertools
from collections.abc import Sequence
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_store

from prunebridge_shim.cluster.exchange import named
from prunebridge_shim.errors import Reason, ShimError

CALLS = itertools.count()
"""Ranks count alike: each call is one of all ranks."""


def await_all_ranks(timeout_s: float) -> None:
    """Waits for all ranks to call this; raises RANK_LOST with those that did not in time."""
    number, rank = next(CALLS), dist.get_rank()
    keys = [f"prunebridge/call/{number}/{each}" for each in range(dist.get_world_size())]
    # The job's own store is where its ranks meet: collectives would not say who is missing.
    store = _get_default_store()
    store.set(keys[rank], "here")
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except RuntimeError as error:
        message = f"{_missing(store, keys)} did not attach within {timeout_s:g} s"
        raise ShimError(Reason.RANK_LOST, message, "every rank of the job has to attach") from error


def _missing(store: Store, keys: Sequence[str]) -> str:
    try:
        return named([rank for rank, key in enumerate(keys) if not store.check([key])])
    except RuntimeError:
        # The store may have gone with the rank that held it.
        return "some ranks"
