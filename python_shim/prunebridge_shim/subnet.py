"""Cuts an open model where it stands: its parameters become the child's one by one, so that memory never holds both."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.request import IndexSets, Indices, TensorSlice, kept_axes, kept_shape

Kept = tuple[Indices | None, ...]


@dataclass(frozen=True)
class PreparedCut:
    """A cut that was checked in full; the model is as it was until `apply`."""

    parent: Any
    child: Any
    sources: Mapping[str, nn.Parameter]
    kept: Mapping[str, Kept]

    def apply(self) -> Any:
        """Moves the model's parameters into the child, which it gives back. The model is empty afterwards."""
        uses = Counter(id(source) for source in self.sources.values())
        for parameter in self.parent.parameters():
            if id(parameter) not in uses:
                _release(parameter)
        twins = _tied_names(self.child)
        for name, source in self.sources.items():
            cut = nn.Parameter(_select(source.data, self.kept[name]), requires_grad=False)
            for twin in twins[name]:
                owner, _, leaf = twin.rpartition(".")
                self.child.get_submodule(owner).register_parameter(leaf, cut)
            uses[id(source)] -= 1
            if uses[id(source)] == 0:
                _release(source)
        return self.child


def prepare_cut(model: Any, config_json: str, tensors: Sequence[TensorSlice], sets: IndexSets) -> PreparedCut:
    """Checks that slices of a model's parameters make up a child, and builds it without memory.

    Args:
        model: An open model.
        config_json: The child's config.json.
        tensors: Every parameter of the child; of tied ones, one or each.
        sets: The index sets that the slices refer to.

    Raises:
        ShimError: INVALID_REQUEST or BAD_TENSOR where they do not.
    """
    child = _build_empty(model, config_json)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    expected = dict(child.named_parameters(remove_duplicate=False))
    twins = _tied_names(child)
    sources: dict[str, nn.Parameter] = {}
    kept: dict[str, Kept] = {}
    for tensor in tensors:
        source = _find_source(tensor, parameters)
        axes = kept_axes(tensor, sets)
        _check_place(tensor, kept_shape(tensor.shape, axes), expected)
        if not any(sources.get(twin) is source for twin in twins[tensor.name]):
            sources[tensor.name], kept[tensor.name] = source, axes
    missing = [name for name in expected if not any(twin in sources for twin in twins[name])]
    if missing:
        raise ShimError(
            Reason.INVALID_REQUEST, f"{len(missing)} parameters of the child have no slice, {missing[0]} for one"
        )
    _keep_other_tensors(model, child)
    return PreparedCut(model, child, sources, kept)


def _build_empty(model: Any, config_json: str) -> Any:
    parent = model.config
    try:
        values = json.loads(config_json)
        if values["model_type"] != parent.model_type:
            raise ValueError(
                f"its model_type is {values['model_type']!r} where the open model's is {parent.model_type!r}"
            )
        config = type(parent).from_dict(values)
        config._attn_implementation = parent._attn_implementation  # noqa: SLF001 transformers' own switch
        with torch.device("meta"):
            child = type(model)(config)
        child.tie_weights()
    except Exception as error:  # transformers raises whatever is at hand for a config that contradicts itself
        cause = f"{type(error).__name__}: {error}"
        raise ShimError(Reason.INVALID_REQUEST, f"the child's config makes no model: {cause}") from error
    child.generation_config = model.generation_config
    return child.eval().requires_grad_(False)


def _find_source(tensor: TensorSlice, parameters: Mapping[str, nn.Parameter]) -> nn.Parameter:
    source = parameters.get(tensor.source_name)
    if source is None:
        raise ShimError(Reason.BAD_TENSOR, f"the open model has no parameter {tensor.source_name}")
    if tuple(source.shape) != tensor.shape:
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{tensor.source_name} of the open model has shape {list(source.shape)}"
            f" where the request says {list(tensor.shape)}",
        )
    return source


def _check_place(tensor: TensorSlice, shape: tuple[int, ...], expected: Mapping[str, nn.Parameter]) -> None:
    place = expected.get(tensor.name)
    if place is None:
        raise ShimError(Reason.INVALID_REQUEST, f"a model by the child's config has no parameter {tensor.name}")
    if tuple(place.shape) != shape:
        raise ShimError(
            Reason.BAD_TENSOR,
            f"{tensor.name} is cut to {list(shape)} where the child's config makes it {list(place.shape)}",
            "the config and the slices are of different plans",
        )


def _tied_names(model: nn.Module) -> dict[str, list[str]]:
    """For each parameter's name all names of the same parameter."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return {name: group for group in groups.values() for name in group}


def _keep_other_tensors(model: nn.Module, child: nn.Module) -> None:
    """Gives the child the model's tensors that are no parameters, such as rotary frequencies, by their names."""
    for path, module in child.named_modules():
        for held, name, tensor in list(_other_tensors(module)):
            where = f"{path}.{name}" if path else name
            try:
                kept = getattr(model.get_submodule(path), name)
            except AttributeError:
                raise ShimError(
                    Reason.INVALID_REQUEST, f"the child has a buffer {where} that the model lacks"
                ) from None
            if kept.shape != tensor.shape:
                raise ShimError(
                    Reason.INVALID_REQUEST,
                    f"buffer {where} is {list(kept.shape)} where the child's config makes it {list(tensor.shape)}",
                    "buffers stay as they are: the config changes what it must not",
                )
            held[name] = kept


def _other_tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    for held in (module._buffers, vars(module)):  # noqa: SLF001 there is no public way to replace either
        yield from ((held, name, value) for name, value in held.items() if isinstance(value, torch.Tensor))


def _release(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data.new_empty(0)


def _select(source: torch.Tensor, kept: Kept) -> torch.Tensor:
    for axis, indices in enumerate(kept):
        if indices is not None:
            source = source.index_select(axis, torch.from_numpy(indices).to(source.device))
    return source
