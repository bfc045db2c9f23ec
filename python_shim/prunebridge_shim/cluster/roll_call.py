"""Waits until all ranks of a job have come, and says which have not."""

import itertools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_store

from prunebridge_shim.cluster.exchange import named
from prunebridge_shim.cluster.group import NEXT_STEP
from prunebridge_shim.cluster.task import Task
from prunebridge_shim.errors import Reason, ShimError

T = TypeVar("T")

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


def once_all_have_come(work: Callable[[], T], wait_s: float, deadline_s: float) -> T:
    """Does work that holds collectives of all ranks, each of which calls this.

    Args:
        work: Done in a thread of its own, which is left behind where a rank is lost in the middle.
        wait_s: Seconds by which all ranks have to have come.
        deadline_s: Seconds that work may take.

    Raises:
        ShimError: RANK_LOST, and what work raises.
    """
    await_all_ranks(wait_s)
    task = Task(work)
    if not task.wait(deadline_s):
        raise ShimError(
            Reason.RANK_LOST, f"not all ranks are joined after {deadline_s:g} s, and all had come", NEXT_STEP
        )
    return task.result()


def _missing(store: Store, keys: Sequence[str]) -> str:
    try:
        return named([rank for rank, key in enumerate(keys) if not store.check([key])])
    except RuntimeError:
        # The store may have gone with the rank that held it.
        return "some ranks"
