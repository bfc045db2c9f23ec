"""All ranks of a job as one: what the leader is told to do, each rank does, or the leader says which did not.

Every command has a number and a digest over all commands so far. A rank takes it up by a deadline, and says so when it
is done. In between, ranks wait for one another in collectives for as long as all are alive, which the board tells.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from prunebridge_shim.cluster.board import Board
from prunebridge_shim.cluster.exchange import LEADER, AgreedError, Exchange, named
from prunebridge_shim.cluster.task import Task
from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory

T = TypeVar("T")

NEXT_STEP = "look into the logs of the ranks; the job has to be started again"
LOOKS_TO_BE_SEEN = 5
MESSAGE_LENGTH = 1000
"""Characters of a failed rank's message that others are told."""

Words = Mapping[str, Any]
"""What a command says, as JSON has it."""


class _Ranks:
    """What leader and followers have in common: an exchange, a board, and the commands so far."""

    def __init__(self, exchange: Exchange, board: Board, deadline_s: float) -> None:
        self._exchange = exchange
        self._board = board
        self._deadline_s = deadline_s
        self._number = 0
        self._digest = ""
        self._is_whole = True

    def close(self) -> None:
        """Leaves the board, and the exchange unless somebody may be left waiting in it."""
        self._board.close()
        if self._is_whole:
            self._exchange.close()


class Leader(_Ranks):
    """Rank 0, which says what is done."""

    _over: ShimError | None = None

    def run(self, words: Words, act: Callable[[], T]) -> T:
        """Has all ranks act on a command; gives what this rank's act gives, once all are done.

        Raises:
            ShimError: RANK_LOST with the ranks that are lost, after which nothing can be run any more; what an act
                raises.
        """
        if self._over is not None:
            raise self._over
        before, text = self._digest, json.dumps(words)
        self._number, self._digest = self._number + 1, _extended(before, text)
        self._board.write(number=self._number, digest=self._digest)
        try:
            self._await("taken", [self._number, before], "taken up")
            task = Task(lambda: (self._exchange.share(text), act())[1])
            while not task.ended:
                self._check()
                self._board.wait()
            if task.error is not None and not isinstance(task.error, AgreedError):
                self._blame(task.error)
            self._await("done", self._number, "done")
        except Exception as error:
            self._give_up(error)
            raise
        return task.result()

    def _await(self, word: str, value: Any, what: str) -> None:
        until = time.monotonic() + self._deadline_s
        while missing := [rank for rank in self._followers if self._board.line(rank).get(word) != value]:
            self._check()
            if time.monotonic() > until:
                raise _lost(missing, f"command {self._number} is not {what} after {self._deadline_s:g} s")
            self._board.wait()

    def _check(self) -> None:
        if lost := self._board.lost():
            raise _lost(lost, f"there is no sign of life while command {self._number} runs")
        for rank in self._followers:
            failed = self._board.line(rank).get("failed")
            if failed is not None:
                self._await_loss(failed["certain"])
                raise ShimError(Reason(failed["reason"]), f"rank {rank}: {failed['message']}", failed["hint"])

    def _blame(self, error: BaseException) -> NoReturn:
        self._await_loss(_is_certain(error))
        raise error

    def _await_loss(self, certain: bool) -> None:
        """Waits for a rank to be known as lost, where that may be what made another one fail."""
        until = time.monotonic() + self._deadline_s * 3 / 4
        while not certain and time.monotonic() < until:
            if lost := self._board.lost():
                raise _lost(lost, f"there is no sign of life since command {self._number} ran")
            self._board.wait()

    def _give_up(self, error: Exception) -> None:
        self._is_whole = False
        message = f"the ranks are no longer together: {error}"
        self._over = ShimError(Reason.RANK_LOST, message, NEXT_STEP)
        self._board.write(over=message)
        # This process may end now, and the store with it.
        for _ in range(LOOKS_TO_BE_SEEN):
            self._board.wait()

    @property
    def _followers(self) -> range:
        return range(1, self._exchange.size)


class Follower(_Ranks):
    """Any other rank."""

    def follow(self, act: Callable[[Words], bool]) -> None:
        """Acts on the leader's commands, until an act says that there will be no more.

        Raises:
            ShimError: RANK_LOST where the leader is lost, or gives up because another rank is.
        """
        more, self._is_whole = True, False
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
        self._is_whole = True

    def _next_command(self) -> str:
        while self._board.line(LEADER).get("number", 0) <= self._number:
            self._check_leader()
            self._board.wait()
        digest: str = self._board.line(LEADER)["digest"]
        return digest

    def _obey(self, announced: str, act: Callable[[Words], bool]) -> bool:
        text: str = self._exchange.share(None)
        self._digest = _extended(self._digest, text)
        if self._digest != announced:
            raise ShimError(Reason.RANK_LOST, f"it was given another command {self._number} than all others", NEXT_STEP)
        return act(json.loads(text))

    def _report(self, error: BaseException) -> NoReturn:
        """Says what went wrong, and waits for the leader to give up."""
        reason = error.reason if isinstance(error, ShimError) else _reason_of(error)
        hint = error.hint if isinstance(error, ShimError) else NEXT_STEP
        failed = {
            "certain": _is_certain(error),
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
            raise _lost([LEADER], f"there is no sign of life since command {self._number}")


def _extended(digest: str, text: str) -> str:
    return hashlib.sha256(f"{digest}{text}".encode()).hexdigest()


def _is_certain(error: BaseException) -> bool:
    """Whether an error is of the rank that raised it: any other may be how torch tells that another rank is gone."""
    return isinstance(error, ShimError) or is_out_of_memory(error)


def _reason_of(error: BaseException) -> Reason:
    return Reason.GPU_OOM if is_out_of_memory(error) else Reason.INTERNAL


def _lost(ranks: Sequence[int], how: str) -> ShimError:
    verb = "is" if len(ranks) == 1 else "are"
    return ShimError(Reason.RANK_LOST, f"{named(ranks)} {verb} lost: {how}", NEXT_STEP)
