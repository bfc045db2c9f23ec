"""All ranks of a job as one: what the leader is told to do, each rank does, or the leader says which did not.

Every command has a number and a digest over all commands so far. A rank takes it up by a deadline, and says so when it
is done. In between, ranks wait for one another in collectives for as long as all are alive, which the board tells.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch.distributed import Work

from prunebridge_shim.cluster.board import Board
from prunebridge_shim.cluster.exchange import Exchange, named
from prunebridge_shim.cluster.task import Task
from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory

NEXT_STEP = "look into the logs of the ranks; the job has to be started again"
SIGNAL_LOOKS = timedelta(seconds=1)
"""Between two looks for a lost leader."""

Words = Mapping[str, Any]
"""What a command says, as JSON has it."""


class Ranks:
    """What leader and followers have in common: an exchange, a board, and the commands so far."""

    def __init__(self, exchange: Exchange, board: Board, deadline_s: float) -> None:
        self._exchange = exchange
        self._board = board
        self._deadline_s = deadline_s
        self._number = 0
        self._digest = ""
        self._is_whole = True

    def signal(self, value: bool) -> bool:
        """Gives on all ranks what the leader says. Costs next to nothing; the leader waits for nobody.

        Raises:
            ShimError: RANK_LOST where the leader is, or where the exchange broke off.
        """
        work, signal = self._exchange.begin_signal(value)
        try:
            self._watch_over(work)
        except ShimError:
            self._is_whole = False
            raise
        return bool(signal.item())

    def rest(self) -> None:
        """Says that nothing is asked for a while."""
        self._board.watch_at_rest()

    def agree(self, error: ShimError | None) -> None:
        """Raises what went wrong on the first rank where something did, on all ranks; RANK_LOST where one is."""
        task = Task(lambda: self._exchange.agree(error))
        while not task.ended:
            if lost := self._board.lost():
                raise lost_ranks(lost, "there is no sign of life")
            self._board.wait()
        if task.error is not None and not isinstance(task.error, ShimError):
            raise self._broken(task.error) from task.error
        task.result()

    def _watch_over(self, work: Work) -> None:
        while not work.is_completed():
            # Also how torch says that this time is over.
            with suppress(RuntimeError):
                work.wait(SIGNAL_LOOKS)
            if not work.is_completed() and (lost := self._board.lost()):
                raise lost_ranks(lost, "there is no sign of life")
        try:
            work.wait()
        except RuntimeError as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> ShimError:
        """Waits for a rank to be known as lost, which is what makes an exchange fail."""
        until = time.monotonic() + self._deadline_s * 3 / 4
        while time.monotonic() < until:
            if lost := self._board.lost():
                return lost_ranks(lost, "there is no sign of life")
            self._board.wait()
        return ShimError(Reason.RANK_LOST, f"the ranks are no longer together: {error}", NEXT_STEP)

    def abandon(self, _error: BaseException) -> None:
        """Leaves without the others, who may be waiting in the exchange."""
        self._is_whole = False
        self.close()

    def close(self) -> None:
        """Leaves the board, and the exchange unless somebody may be left waiting in it."""
        self._board.close()
        if self._is_whole:
            self._exchange.close()


def extended(digest: str, text: str) -> str:
    """The digest of the commands so far and one more."""
    return hashlib.sha256(f"{digest}{text}".encode()).hexdigest()


def is_certain(error: BaseException) -> bool:
    """Whether an error is of the rank that raised it: any other may be how torch tells that another rank is gone."""
    return isinstance(error, ShimError) or is_out_of_memory(error)


def lost_ranks(ranks: Sequence[int], how: str) -> ShimError:
    """The error that names ranks, and how they are known to be lost."""
    verb = "is" if len(ranks) == 1 else "are"
    return ShimError(Reason.RANK_LOST, f"{named(ranks)} {verb} lost: {how}", NEXT_STEP)
