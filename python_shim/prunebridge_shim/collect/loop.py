"""Measures while a loop that is not the shim's runs the model."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prunebridge_shim.collect.hooks import HookPoint, attached, batch_shape, find_modules
from prunebridge_shim.collect.run import Collected, bring_home, smallest_runner
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.arguments import bind_arguments
from prunebridge_shim.models.undisturbed import undisturbed
from prunebridge_shim.tensors import Tick

Loop = Callable[[Any], None]
"""Runs the model that it is given as often as it likes."""


def collect_loop(model: Any, points: Sequence[HookPoint], loop: Loop, tick: Tick) -> Collected:
    """Calls a loop once, with hooks that accumulate in float32; counts the forward passes that it makes.

    Raises:
        ShimError: UNKNOWN_MODULE for a hook point that the model lacks or never runs, BAD_DATA for a loop that runs no
            batch, BAD_TENSOR for an activation that is not [batch, sequence, channel]; CANCELLED at a batch.
    """
    modules = find_modules(model, points)
    done = Collected({})
    with (
        attached(points, modules, model.base_model) as sums,
        undisturbed(model),
        counted(model, done, tick),
    ):
        loop(model)
    if not done.batches:
        raise ShimError(Reason.BAD_DATA, "the forward loop ended before its first batch", "run at least one batch")
    with done.timed():  # a GPU's work is awaited here
        done.sums = bring_home(points, sums)
    return done


def run_batches(model: Any, points: Sequence[HookPoint], batches: Iterable[Any]) -> None:
    """Runs the model on batches in the forms of `bind_arguments`."""
    modules = find_modules(model, points)
    for index, batch in enumerate(batches):
        arguments = {"use_cache": False, **bind_arguments(model, batch, index)}
        smallest_runner(model, modules, arguments)(**arguments)


@contextmanager
def counted(model: Any, done: Collected, tick: Tick) -> Iterator[None]:
    """Counts and times the forward passes of a model while the context lasts, and ticks at each."""
    began = 0.0

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal began
        tick(done.batches, 0)
        done.count(*batch_shape(args, kwargs))
        began = time.perf_counter()

    def after(*_: Any) -> None:
        done.forward_seconds += time.perf_counter() - began

    # Whoever runs the model runs its decoder.
    decoder = model.base_model
    handles = [decoder.register_forward_pre_hook(before, with_kwargs=True), decoder.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        # A loop may have swallowed what told it to end.
        tick(done.batches, 0)
