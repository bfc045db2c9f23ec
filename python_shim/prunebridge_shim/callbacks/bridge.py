"""For Megatron-Bridge. Imports megatron.bridge.

Written to its documented callbacks, and run in tests with a loop that calls them so; not with Megatron-Bridge.
Source: https://docs.nvidia.com/nemo/megatron-bridge/latest/training/callbacks.html
"""

from typing import Any

from megatron.bridge.training.callbacks import Callback

from prunebridge_shim.guest import Guest, attach


class AttachCallback(Callback):  # type: ignore[misc]
    """Attaches when training starts, steps after each step, and detaches when training ends.

    Takes what `prunebridge_shim.attach` does but the model, which is the job's: `pretrain(..., callbacks=[it])`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._guest: Guest | None = None

    def on_train_start(self, context: Any) -> None:  # noqa: D102 Megatron-Bridge's
        self._guest = attach(context.model, **self._options)

    def on_train_step_end(self, context: Any) -> None:  # noqa: ARG002, D102
        if self._guest is not None:
            self._guest.step()

    def on_train_end(self, context: Any) -> None:  # noqa: ARG002, D102
        if self._guest is not None:
            self._guest.detach()
