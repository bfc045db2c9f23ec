"""Work in a thread that can be left behind: what waits in a collective for a lost rank can not be ended."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Task(Generic[T]):
    """A function that runs in a thread of its own, on the device and the stream of the thread that starts it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._result: list[T] = []
        # A job may have its kernels on a stream of its own: on another one, nothing would wait for them.
        self._stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None
        self._thread = threading.Thread(target=self._run, name="prunebridge-task", daemon=True)
        self.error: BaseException | None = None
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the function has returned or raised."""
        return not self._thread.is_alive()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the function; says whether it came in time."""
        self._thread.join(timeout_s)
        return self.ended

    def result(self) -> T:
        """What the function returned; raises what it raised. Only where it has ended."""
        if self.error is not None:
            raise self.error
        return self._result[0]

    def _run(self) -> None:
        try:
            if self._stream is not None:
                torch.cuda.set_device(self._stream.device)
            with torch.cuda.stream(self._stream):
                self._result.append(self._function())
        except BaseException as error:  # noqa: BLE001 it is raised where the task is waited for
            self.error = error
