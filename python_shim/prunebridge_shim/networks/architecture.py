"""Opens the folder of a pruned network: what it was built by, which modules count other channels, and its weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.networks.documents import parse_object
from prunebridge_shim.networks.sizes import Sizes, check_sizes, set_sizes
from prunebridge_shim.networks.weights import Weights, fill_reshaped, read_weights

FILE = "architecture.json"
FORMAT = "prunebridge.architecture/1"
WEIGHTS = "model.safetensors"

Build = Callable[[Mapping[str, Any]], nn.Module]
"""Builds the network that was pruned, from the file's `source`."""


@dataclass(frozen=True)
class Architecture:
    """What `architecture.json` says.

    Attributes:
        source: What the network that was pruned is built by: `entrypoint` and `kwargs`, or `transformers` and `config`.
        modules: The attributes that count its channels, by module.
        tensors: The shape of each parameter and stored buffer.
    """

    source: Mapping[str, Any]
    modules: Sizes
    tensors: Mapping[str, Sequence[int]]


def open_pruned(folder: Path, build: Build) -> nn.Module:
    """Builds a pruned network of its folder.

    Raises:
        ShimError: PATH_NOT_FOUND, BAD_CHECKPOINT where the files or the network do not agree, and what `build` raises.
    """
    path = folder / FILE
    architecture = read_architecture(path)
    weights = read_weights(folder / WEIGHTS)
    _check_shapes(path, architecture, weights)
    network = build(architecture.source)
    set_sizes(network, architecture.modules, Reason.BAD_CHECKPOINT)
    fill_reshaped(network, weights, folder / WEIGHTS)
    check_sizes(network, Reason.BAD_CHECKPOINT)
    return network


def read_architecture(path: Path) -> Architecture:
    """Reads the file strictly; raises PATH_NOT_FOUND or BAD_CHECKPOINT."""
    if not path.is_file():
        raise ShimError(Reason.PATH_NOT_FOUND, f"{path} is no file", f"the folder of a pruned network has an {FILE}")
    found = parse_object(path.read_bytes(), str(path), Reason.BAD_CHECKPOINT)
    if found.get("format") != FORMAT:
        _refuse(path, f"is not of the format {FORMAT}")
    if found.keys() != {"format", "source", "modules", "tensors"}:
        _refuse(path, f"has the fields {', '.join(sorted(found))} where format, source, modules and tensors belong")
    return Architecture(
        _source(path, found["source"]), _modules(path, found["modules"]), _tensors(path, found["tensors"])
    )


def _source(path: Path, found: Any) -> Mapping[str, Any]:
    for name, inner in (("entrypoint", "kwargs"), ("transformers", "config")):
        if isinstance(found, dict) and found.keys() == {name, inner}:
            if not isinstance(found[name], str) or not isinstance(found[inner], dict):
                _refuse(path, f"has a source of which {name} is no text, or {inner} no object")
            return found
    return _refuse(path, "has a source that is neither entrypoint and kwargs nor transformers and config")


def _modules(path: Path, found: Any) -> Sizes:
    for module, attributes in _mapping(path, "modules", found).items():
        for attribute, size in _mapping(path, f"modules.{module}", attributes).items():
            if not _is_size(size):
                _refuse(path, f"has {size!r} for {module}.{attribute}, which is no number of channels")
    return dict(found)


def _tensors(path: Path, found: Any) -> Mapping[str, Sequence[int]]:
    for name, shape in _mapping(path, "tensors", found).items():
        if not isinstance(shape, list) or not all(map(_is_size, shape)):
            _refuse(path, f"has {shape!r} for {name}, which is no shape")
    return dict(found)


def _mapping(path: Path, where: str, found: Any) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        _refuse(path, f"has {where} that are no object")
    return found


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check_shapes(path: Path, architecture: Architecture, weights: Weights) -> None:
    for name, tensor in weights.items():
        if name not in architecture.tensors:
            _refuse(path, f"knows no tensor {name}, which {WEIGHTS} holds")
        if list(tensor.shape) != list(architecture.tensors[name]):
            _refuse(path, f"has {name} as {architecture.tensors[name]} and {WEIGHTS} as {list(tensor.shape)}")


def _refuse(path: Path, message: str) -> NoReturn:
    raise ShimError(Reason.BAD_CHECKPOINT, f"{path} {message}", "save the pruned network again")
