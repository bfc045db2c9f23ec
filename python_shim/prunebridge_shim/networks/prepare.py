"""Checks that slices of an open network and the sizes of its modules make up a child."""

from collections.abc import Sequence
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.child import build_child
from prunebridge_shim.networks.sizes import Sizes, check_sizes
from prunebridge_shim.slicing.kept import find_kept
from prunebridge_shim.slicing.request import IndexSets, TensorSlice
from prunebridge_shim.subnet.child import stored_tensors
from prunebridge_shim.subnet.prepare import PreparedChild, assemble, find_source


def prepare_resized(model: Any, sizes: Sizes, tensors: Sequence[TensorSlice], sets: IndexSets) -> PreparedChild:
    """Builds, without memory for its tensors, a child of the same modules that counts what slices leave of it.

    Args:
        model: An open model or network, which is left as it is.
        sizes: The attributes of modules that count what was cut.
        tensors: Every parameter and persistent buffer of the child; of tied ones, one or each.
        sets: The index sets that the slices refer to.

    Raises:
        ShimError: UNKNOWN_MODULE, BAD_TENSOR or INVALID_REQUEST where they do not make up one.
    """
    sources = stored_tensors(model)
    made = {}
    for tensor in tensors:
        if tensor.name not in sources:
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"{tensor.name} is no parameter or stored buffer of the open model",
                "a child of changed modules has the tensors that its parent has",
            )
        source = find_source(tensor.only_part, sources)
        made[tensor.name] = source.new_empty(find_kept(tensor.name, tensor.only_part, sets).shape, device="meta")
    child = build_child(model, made, sizes)
    prepared = assemble(model, child, tensors, sets)
    check_sizes(child, Reason.BAD_TENSOR)
    return prepared
