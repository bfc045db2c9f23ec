"""Any other rank of those that work as one."""

import json
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from prunebridge_shim.cluster.exchange import LEADER, AgreedError
from prunebridge_shim.cluster.group import NEXT_STEP, Ranks, Words, extended, is_certain, lost_ranks
from prunebridge_shim.cluster.task import Task
from prunebridge_shim.errors import Reason, ShimError, reason_of

MESSAGE_LENGTH = 1000
"""Characters of a failed rank's message that others are told."""


class Follower(Ranks):
    """Any other rank."""

    def follow(self, act: Callable[[Words], bool]) -> None:
        """Acts on the leader's commands, until an act says that there will be no more.

        Raises:
            ShimError: RANK_LOST where the leader is lost, or gives up because another rank is.
        """
        more, self._is_whole = True, False
        self._board.write(followed=self._number)
        self._board.watch_closely()
        while more:
            announced = self._next_command()
            self._number += 1
            self._board.write(taken=[self._number, self._digest])
            task = Task(partial(self._obey, announced, act))
            while not task.ended:
                self._check_leader()
                self._board.wait()
            if task.error is not None and not isinstance(task.error, AgreedError):
                self._report(task.error)
            self._board.write(done=self._number)
            more = task.error is not None or task.result()
        self.rest()
        self._is_whole = True

    def _next_command(self) -> str:
        while self._board.line(LEADER).get("number", 0) <= self._number:
            self._check_leader()
            self._board.wait()
        digest: str = self._board.line(LEADER)["digest"]
        return digest

    def _obey(self, announced: str, act: Callable[[Words], bool]) -> bool:
        text: str = self._exchange.share(None)
        self._digest = extended(self._digest, text)
        if self._digest != announced:
            raise ShimError(Reason.RANK_LOST, f"it was given another command {self._number} than all others", NEXT_STEP)
        return act(json.loads(text))

    def _report(self, error: BaseException) -> NoReturn:
        """Says what went wrong, and waits for the leader to give up."""
        reason = error.reason if isinstance(error, ShimError) else reason_of(error)
        hint = error.hint if isinstance(error, ShimError) else NEXT_STEP
        failed = {
            "certain": is_certain(error),
            "reason": int(reason),
            "message": str(error)[:MESSAGE_LENGTH],
            "hint": hint,
        }
        self._board.write(failed=failed)
        while True:
            self._check_leader()
            self._board.wait()

    def _check_leader(self) -> None:
        over = self._board.line(LEADER).get("over")
        if over is not None:
            raise ShimError(Reason.RANK_LOST, over, NEXT_STEP)
        if self._board.lost():
            raise lost_ranks([LEADER], f"there is no sign of life since command {self._number}")
