"""Rank 0 of the ranks that work as one."""

import json
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from prunebridge_shim.cluster.exchange import AgreedError
from prunebridge_shim.cluster.group import NEXT_STEP, Ranks, Words, extended, is_certain, lost_ranks
from prunebridge_shim.cluster.task import Task
from prunebridge_shim.errors import Reason, ShimError

T = TypeVar("T")

LOOKS_TO_BE_SEEN = 5


class Leader(Ranks):
    """Rank 0, which says what is done."""

    _over: ShimError | None = None

    @property
    def over(self) -> ShimError | None:
        """Why nothing can be run any more."""
        return self._over

    @property
    def lost(self) -> ShimError | None:
        """Why nothing could be run now: ranks give no sign of life, for as long as they do not."""
        if self._over is None and (lost := self._board.lost()):
            return lost_ranks(lost, "there is no sign of life")
        return self._over

    def signal(self, value: bool) -> bool:
        """As `Ranks.signal`; where it fails, nothing can be run any more."""
        try:
            return super().signal(value)
        except ShimError as error:
            self._give_up(error)
            raise

    def call_together(self, wait_s: float) -> None:
        """Waits for all followers to follow, which some of them may do later than others; raises RANK_LOST."""
        self._board.watch_closely()
        try:
            self._await("followed", self._number, "not at the end of its step", wait_s)
        except Exception as error:
            self._give_up(error)
            raise

    def abandon(self, error: BaseException) -> None:
        """Says that nothing will be run any more, and leaves."""
        if self._over is None:
            self._give_up(error)
        self.close()

    def run(self, words: Words, act: Callable[[], T]) -> T:
        """Has all ranks act on a command; gives what this rank's act gives, once all are done.

        Raises:
            ShimError: RANK_LOST with the ranks that are lost, after which nothing can be run any more; what an act
                raises.
        """
        if self._over is not None:
            raise self._over
        before, text = self._digest, json.dumps(words)
        self._number, self._digest = self._number + 1, extended(before, text)
        self._board.write(number=self._number, digest=self._digest)
        try:
            self._await("taken", [self._number, before], f"command {self._number} is not taken up", self._deadline_s)
            task = Task(lambda: (self._exchange.share(text), act())[1])
            while not task.ended:
                self._check()
                self._board.wait()
            if task.error is not None and not isinstance(task.error, AgreedError):
                self._blame(task.error)
            self._await("done", self._number, f"command {self._number} is not done", self._deadline_s)
        except BaseException as error:
            self._give_up(error)
            raise
        return task.result()

    def _await(self, word: str, value: Any, what: str, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while missing := [rank for rank in self._followers if self._board.line(rank).get(word) != value]:
            self._check()
            if time.monotonic() > until:
                raise lost_ranks(missing, f"{what} after {wait_s:g} s")
            self._board.wait()

    def _check(self) -> None:
        if lost := self._board.lost():
            raise lost_ranks(lost, f"there is no sign of life while command {self._number} runs")
        for rank in self._followers:
            failed = self._board.line(rank).get("failed")
            if failed is not None:
                self._await_loss(failed["certain"])
                raise ShimError(Reason(failed["reason"]), f"rank {rank}: {failed['message']}", failed["hint"])

    def _blame(self, error: BaseException) -> NoReturn:
        self._await_loss(is_certain(error))
        raise error

    def _await_loss(self, certain: bool) -> None:
        """Waits for a rank to be known as lost, where that may be what made another one fail."""
        until = time.monotonic() + self._deadline_s * 3 / 4
        while not certain and time.monotonic() < until:
            if lost := self._board.lost():
                raise lost_ranks(lost, f"there is no sign of life since command {self._number} ran")
            self._board.wait()

    def _give_up(self, error: BaseException) -> None:
        self._is_whole = False
        self._board.watch_closely()
        message = f"the ranks are no longer together: {error}"
        self._over = ShimError(Reason.RANK_LOST, message, NEXT_STEP)
        self._board.write(over=message)
        # This process may end now, and the store with it.
        for _ in range(LOOKS_TO_BE_SEEN):
            self._board.wait()

    @property
    def _followers(self) -> range:
        return range(1, self._exchange.size)
