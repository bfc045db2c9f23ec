"""Checks that slices of an open model make up a child."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.kept import Kept, find_kept
from prunebridge_shim.slicing.request import IndexSets, TensorPart, TensorSlice
from prunebridge_shim.subnet.child import build_child, names_of_each, stored_tensors


@dataclass(frozen=True)
class LiveSlice:
    """A tensor of the child: what is kept of which tensor of the open model."""

    source: torch.Tensor
    kept: Kept


@dataclass(frozen=True)
class PreparedChild:
    """A child that was checked in full.

    Attributes:
        parent: The open model, as it was.
        child: The child, whose parameters and persistent buffers are on the meta device.
        slices: What they are made of, by their names; of tied ones under one name at least.
        names: For each parameter's and persistent buffer's name, all names of the same tensor.
    """

    parent: Any
    child: Any
    slices: Mapping[str, LiveSlice]
    names: Mapping[str, Sequence[str]]


def prepare_child(model: Any, config_json: str, tensors: Sequence[TensorSlice], sets: IndexSets) -> PreparedChild:
    """Checks that slices of a model's tensors make up a child, and builds it without memory.

    Args:
        model: An open model.
        config_json: The child's config.json.
        tensors: Every parameter and persistent buffer of the child; of tied ones, one or each.
        sets: The index sets that the slices refer to.

    Raises:
        ShimError: INVALID_REQUEST or BAD_TENSOR where they do not.
    """
    return assemble(model, build_child(model, config_json), tensors, sets)


def assemble(model: Any, child: Any, tensors: Sequence[TensorSlice], sets: IndexSets) -> PreparedChild:
    """Checks slices against a child that was built without memory; arguments and errors as `prepare_child`."""
    sources, expected = stored_tensors(model), stored_tensors(child)
    names = names_of_each(expected)
    slices: dict[str, LiveSlice] = {}
    for tensor in tensors:
        source = find_source(tensor.only_part, sources)
        kept = find_kept(tensor.name, tensor.only_part, sets)
        _check_place(tensor, kept.shape, expected)
        if not any(twin in slices and slices[twin].source is source for twin in names[tensor.name]):
            slices[tensor.name] = LiveSlice(source, kept)
    missing = [name for name in expected if not any(twin in slices for twin in names[name])]
    if missing:
        raise ShimError(
            Reason.INVALID_REQUEST, f"{len(missing)} tensors of the child have no slice, {missing[0]} for one"
        )
    return PreparedChild(model, child, slices, names)


def find_source(part: TensorPart, sources: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The tensor of the open model that a part is cut from; raises BAD_TENSOR where it is another."""
    source = sources.get(part.source_name)
    if source is None:
        raise ShimError(Reason.BAD_TENSOR, f"the open model has no parameter or stored buffer {part.source_name}")
    if tuple(source.shape) != part.shape:
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{part.source_name} of the open model has shape {list(source.shape)}"
            f" where the request says {list(part.shape)}",
        )
    return source


def _check_place(tensor: TensorSlice, shape: tuple[int, ...], expected: Mapping[str, torch.Tensor]) -> None:
    place = expected.get(tensor.name)
    if place is None:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"a model by the child's config has no parameter or stored buffer {tensor.name}",
        )
    if tuple(place.shape) != shape:
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{tensor.name} is cut to {list(shape)} where the child's config makes it {list(place.shape)}",
            "the config and the slices are of different plans",
        )
