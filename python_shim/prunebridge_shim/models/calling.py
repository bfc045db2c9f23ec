"""Calls a model."""

import math
from typing import Any

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.models.batches import INPUT_IDS, Inputs


def call(runner: Any, inputs: Inputs) -> Any:
    """Calls a model, or a part of it that takes the same arguments, without a cache of keys and values.

    Raises:
        ShimError: BAD_DATA where an argument beside the token ids does not fit them, or sequences are too long.
    """
    try:
        return runner(**inputs, use_cache=False)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        most = getattr(runner.config, "max_position_embeddings", None) or math.inf
        # Token ids alone were checked: what fails then is a defect, but for a length that no position is learned for.
        was_checked = len(inputs) == 1 and inputs[INPUT_IDS].shape[-1] <= most
        if was_checked or is_out_of_memory(error):
            raise
        held = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        hint = f"its config has {most} positions" if most < math.inf else ""
        raise ShimError(Reason.BAD_DATA, f"the model cannot run a batch of {held}: {error}", hint) from error
