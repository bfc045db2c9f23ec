"""Batches between a client's stream and the operation that reads it, and what they give back."""

from collections import deque
from collections.abc import Iterator
from threading import Condition

from prunebridge_shim.errors import Reason, ShimError, cancelled
from prunebridge_shim.rpc.options import ANSWER_DEPTH, FEED_DEPTH, FEED_OPENING_SECONDS, FEED_SILENCE_SECONDS
from prunebridge_shim.tensors import Ask, Batch, Returns

Answer = tuple[int, Batch]
"""What a batch gives back, with the batch's number, counted from 0."""


class Feed:
    """At most `FEED_DEPTH` batches on their way in and `ANSWER_DEPTH` answers on their way out.

    One stream sends the batches and hears the answers, one operation reads the batches; either may be lost.
    """

    def __init__(self, feed_id: str) -> None:
        self.id = feed_id
        self._changed = Condition()
        self._waiting: deque[tuple[Batch, Returns]] = deque()
        self._answers: deque[Answer] = deque()
        self._taken = 0
        self._unanswered = 0
        self._attached = False
        self._begun = False  # the reader has begun, or never will
        self._complete = False  # the sender has sent its last batch
        self._broken: ShimError | None = None  # the sender is lost
        self._unheard: ShimError | None = None  # nobody hears answers any more
        self._cancelled = False  # the reader is to stop
        self._closed = False  # the reader has ended

    def attach(self) -> None:
        """Claims the sender's side; raises INVALID_REQUEST where another stream has it."""
        with self._changed:
            if self._attached:
                raise ShimError(Reason.INVALID_REQUEST, f"feed {self.id!r} has a stream already")
            self._attached = True
            self._changed.notify_all()

    def await_reader(self) -> None:
        """Waits until the operation has begun, as only running ones hold batches; raises what ended it before."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun or self._unheard)
            if self._closed:
                raise self._reader_gone()
            if not self._begun and self._unheard:
                raise self._unheard

    def put(self, batch: Batch, returns: Returns) -> None:
        """Adds a batch once there is room; raises FEED_LOST where the operation has ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < FEED_DEPTH or self._closed)
            if self._closed:
                raise self._reader_gone()
            self._waiting.append((batch, returns))
            self._changed.notify_all()

    def complete(self) -> None:
        """Says that no batch follows."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def break_off(self, error: ShimError) -> None:
        """Says that the sender is lost, which fails the operation."""
        with self._changed:
            self._broken = error
            self._changed.notify_all()

    def hang_up(self, error: ShimError) -> None:
        """Says that nobody hears answers any more, which fails an operation that has one to give."""
        with self._changed:
            self._unheard = error
            self._changed.notify_all()

    def answers(self) -> Iterator[Answer]:
        """Gives the answers in the order of their batches, until the operation has taken and answered all.

        Raises:
            ShimError: FEED_LOST where the operation ended before, or what broke the stream.
        """
        while (answer := self._next_answer()) is not None:
            yield answer

    @property
    def taken(self) -> int:
        """Batches that the operation has taken."""
        return self._taken

    def __iter__(self) -> Iterator[Ask]:
        """Takes batches until the sender has sent its last; raises CANCELLED, or what broke the stream.

        A sender that never comes is lost, too: it may have died between starting the operation and opening its stream.
        So is one that falls silent, and one that takes no answers: they would hold up all work of this lane.
        """
        self._await_sender()
        while (ask := self._take()) is not None:
            yield ask

    def batches(self) -> Iterator[Batch]:
        """The same for work that runs no model; raises INVALID_REQUEST for a batch that asks for something."""
        for number, ask in enumerate(self):
            if ask.returns != "nothing":
                raise ShimError(
                    Reason.INVALID_REQUEST,
                    f"batch {number} of feed {self.id!r} asks for {ask.returns} where no model runs",
                )
            yield ask.batch

    def begin(self) -> None:
        """Says that the operation has begun."""
        with self._changed:
            self._begun = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Wakes a reader that waits, and has it raise CANCELLED."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def close(self) -> None:
        """Says that the operation has ended; batches that wait are dropped, answers are still given out."""
        with self._changed:
            self._begun = self._closed = True
            self._complete = self._all_taken
            self._waiting.clear()
            self._changed.notify_all()

    @property
    def _all_taken(self) -> bool:
        return self._complete and not self._waiting

    @property
    def _all_answered(self) -> bool:
        return self._all_taken and not self._unanswered

    def _await_sender(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._attached or self._cancelled, FEED_OPENING_SECONDS):
                self._broken = ShimError(
                    Reason.FEED_LOST,
                    f"no client opened feed {self.id!r} within {FEED_OPENING_SECONDS:g} s",
                    "start the operation again",
                )

    def _take(self) -> Ask | None:
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._waiting or self._complete or self._broken or self._cancelled, FEED_SILENCE_SECONDS
            ):
                self._broken = self._silent("sent no whole batch", "send smaller batches, or make them before Start")
            self._raise_lost()
            if not self._waiting:
                return None
            (batch, returns), number = self._waiting.popleft(), self._taken
            self._taken += 1
            self._unanswered += returns != "nothing"
            self._changed.notify_all()
            return Ask(batch, returns, lambda answer: self._answer(number, answer))

    def _answer(self, number: int, answer: Batch) -> None:
        with self._changed:
            if not self._changed.wait_for(
                lambda: len(self._answers) < ANSWER_DEPTH or self._unheard or self._broken or self._cancelled,
                FEED_SILENCE_SECONDS,
            ):
                self._broken = self._silent("took no answer", "read answers as they come, or ask for less")
            self._raise_lost()
            if self._unheard:
                raise self._unheard
            self._answers.append((number, answer))
            self._unanswered -= 1
            self._changed.notify_all()

    def _next_answer(self) -> Answer | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._answers or self._all_answered or self._closed or self._broken or self._unheard
            )
            if lost := self._broken or self._unheard:
                raise lost
            if self._answers:
                answer = self._answers.popleft()
                self._changed.notify_all()
                return answer
            if not self._all_answered:
                raise self._reader_gone()
            return None

    def _raise_lost(self) -> None:
        if self._cancelled:
            raise cancelled()
        if self._broken:
            raise self._broken

    def _silent(self, omission: str, hint: str) -> ShimError:
        return ShimError(
            Reason.FEED_LOST, f"the client of feed {self.id!r} {omission} for {FEED_SILENCE_SECONDS:g} s", hint
        )

    def _reader_gone(self) -> ShimError:
        return ShimError(
            Reason.FEED_LOST, f"the operation that read feed {self.id!r} has ended", "its last event says why"
        )
