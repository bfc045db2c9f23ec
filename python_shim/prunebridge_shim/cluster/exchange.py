"""Exchanges Python values between all ranks, over a CPU group beside the job's own."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from prunebridge_shim.errors import Reason, ShimError, reason_of, storage_error, text_of

LEADER = 0
FOREVER = timedelta(days=365)
"""An exchange waits for as long as all ranks live; who does not is told by the board."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class AgreedError(ShimError):
    """A failure that all ranks raise together, after which they are as they were before."""


class Exchange:
    """Collectives of the whole job. Every rank has to call the same ones in the same order."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=FOREVER)
        self._made = [self._group]

    def make_group(self, ranks: Sequence[int]) -> dist.ProcessGroup | None:
        """Makes a group of some ranks, on the job's own backend, and gives it to those. Every rank has to call it."""
        group: dist.ProcessGroup = dist.new_group(list(ranks))
        if self.rank not in ranks:
            return None
        self._made.append(group)
        return group

    def close(self) -> None:
        """Takes the groups down. Nobody may be waiting in one."""
        while self._made:
            dist.destroy_process_group(self._made.pop())

    def share(self, value: T | None) -> T:
        """Gives what the leader brings, on all ranks."""
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=LEADER, group=self._group)
        shared: T = values[0]
        return shared

    def begin_signal(self, value: bool) -> tuple[dist.Work, torch.Tensor]:
        """Begins the least of exchanges: the tensor has what the leader brings, on all ranks, once the work is done."""
        signal = torch.tensor([value], dtype=torch.uint8, device="cpu")
        work = dist.broadcast(signal, src=LEADER, group=self._group, async_op=True)
        assert work is not None
        return work, signal

    def gather(self, value: T) -> list[T]:
        """Gives what all ranks bring by their numbers, on the leader; nothing on the others."""
        values: list[Any] = [None] * self.size if self.rank == LEADER else []
        dist.gather_object(value, values or None, dst=LEADER, group=self._group)
        return values

    def gather_everywhere(self, value: T) -> list[T]:
        """Gives what all ranks bring by their numbers, on all ranks."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def attempt(self, work: Callable[[], T]) -> T:
        """Gives what work, which holds no collective, gives on this rank, once it is done on all.

        What it raises on one, all raise: INTERNAL or GPU_OOM where that has no reason of its own.
        """
        results: list[T] = []
        failure = None
        try:
            results.append(work())
        except ShimError as error:
            failure = error
        except OSError as error:
            failure = storage_error(error)
        except Exception as error:
            log.exception("rank %d failed where all ranks attempt the same", self.rank)
            message = f"rank {self.rank}: {type(error).__name__}: {text_of(error)}"
            failure = ShimError(reason_of(error), message, "the traceback is in the log of that rank")
        self.agree(failure)
        return results[0]

    def lead(self, work: Callable[[], T]) -> T:
        """Does work on the leader alone; gives what it gives, or raises what it raises, on all ranks."""
        return self.share(self.attempt(work) if self.rank == LEADER else self.attempt(_nothing))

    def agree(self, error: ShimError | None) -> None:
        """Raises what went wrong on the first rank where something did, on all ranks."""
        mine = None if error is None else (int(error.reason), error.message, error.hint)
        for failure in self.gather_everywhere(mine):
            if failure is not None:
                reason, message, hint = failure
                raise AgreedError(Reason(reason), message, hint)


def named(ranks: Sequence[int]) -> str:
    """Ranks as messages name them."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def _nothing() -> None:
    """What a rank does while the leader does something."""
