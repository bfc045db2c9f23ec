"""For NeMo 2, whose training loop is Lightning's. Imports lightning.

Run in tests with Lightning 2.6 and a strategy that holds a model of Megatron-Core's as NeMo's does; not with NeMo.
"""

from typing import Any

from lightning.pytorch import Callback

from prunebridge_shim.guest import Guest, attach


class AttachCallback(Callback):  # type: ignore[misc]
    """Attaches when training starts, steps after each batch, and detaches when training ends.

    Takes what `prunebridge_shim.attach` does but the model, which is that of NeMo's MegatronStrategy.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._guest: Guest | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002, D102 Lightning's
        self._guest = attach(trainer.strategy.megatron_parallel, **self._options)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:  # noqa: D102
        if self._guest is not None:
            self._guest.step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002, D102
        if self._guest is not None:
            self._guest.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002, D102
        if self._guest is not None:
            self._guest.__exit__(type(exception), exception, exception.__traceback__)
