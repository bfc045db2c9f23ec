"""Work that calls Python functions by name. Imports torch."""

import math
from collections.abc import Sequence
from typing import Any

from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.loop import collect_loop, run_batches
from prunebridge_shim.collect.run import Collected
from prunebridge_shim.entry_points import EntryPoints, blaming
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.models.ticking import ticking
from prunebridge_shim.models.undisturbed import undisturbed
from prunebridge_shim.rpc.python_batches import PythonBatches
from prunebridge_shim.tensors import Tick


def collect_by_python(
    model: Any, points: Sequence[HookPoint], work: work_pb2.Collect, entry_points: EntryPoints, tick: Tick
) -> Collected:
    """Measures while a Python loop runs the model, or over the batches of a Python iterable.

    Raises:
        ShimError: PYTHON_DENIED, PYTHON_FAILED, or as `collect_loop` does.
    """
    if work.WhichOneof("python") == "data":
        return _collect_data(model, points, work.data, entry_points, tick)
    function = entry_points.find(work.forward_loop)

    def loop(model: Any) -> None:
        with blaming(work.forward_loop):
            function(model)

    return collect_loop(model, points, loop, tick)


def score_by_python(model: Any, name: str, entry_points: EntryPoints, tick: Tick) -> float:
    """Calls a score function with the model; it can be cancelled wherever it runs the model.

    Raises:
        ShimError: PYTHON_DENIED, or PYTHON_FAILED where it raises or gives no finite number; CANCELLED.
    """
    function = entry_points.find(name)
    with undisturbed(model), ticking(model, tick), blaming(name):
        value = function(model)
        # A tensor of one element is a number too.
        score = float("nan") if isinstance(value, str) else float(value)
    if not math.isfinite(score):
        raise ShimError(Reason.PYTHON_FAILED, f"{name} gave {value!r} where a finite number belongs")
    return score


def _collect_data(
    model: Any, points: Sequence[HookPoint], data: work_pb2.PythonData, entry_points: EntryPoints, tick: Tick
) -> Collected:
    batches = PythonBatches(data, entry_points)

    def loop(model: Any) -> None:
        # Arguments that the model cannot run are of this function's making.
        with blaming(batches.author):
            run_batches(model, points, (arguments for _, arguments in batches))

    return collect_loop(model, points, loop, lambda done, _total: tick(done, batches.total))
