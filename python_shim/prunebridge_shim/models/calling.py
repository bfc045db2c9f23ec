"""Calls a model."""

from typing import Any

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.models.batches import Inputs


def call(runner: Any, inputs: Inputs) -> Any:
    """Calls a model, or a part of it that takes the same arguments, without a cache of keys and values.

    Raises:
        ShimError: BAD_DATA where an argument beside the token ids does not fit them.
    """
    try:
        return runner(**inputs, use_cache=False)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        # Token ids alone were checked: what fails then is a defect.
        if len(inputs) == 1 or is_out_of_memory(error):
            raise
        held = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        raise ShimError(Reason.BAD_DATA, f"the model cannot run a batch of {held}: {error}") from error
