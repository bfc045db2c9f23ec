"""Reads boxes of a checkpoint's tensors by the keys that Megatron-Core shards them under; runs nothing of it."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from prunebridge_shim.cluster.norms import apart
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.hosting.folder import read_json
from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.torch_dist import TorchDistFolder
from prunebridge_shim.slicing.torch_dist_metadata import METADATA_FILE
from prunebridge_shim.slicing.torch_dist_names import TORCH_DTYPES

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT_LAYER = "output_layer.weight"
LAYER = re.compile(r"(^|\.)layers\.(?!\d)")
EXPERTS = "mlp.experts.experts."

DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, spelled.removeprefix("torch."))
    for spelled, name in TORCH_DTYPES.items()
    if hasattr(torch, spelled.removeprefix("torch."))
}

Sizes = tuple[int, ...]


class Weights(Protocol):
    """The tensors of a checkpoint.

    Attributes:
        prefix: What lies before all keys.
        numbered: Whether each layer has tensors of its own.
        dtype: That of the embedding.
        names: All that is stored of the model, each layer and each expert under a name of its own.
        taken: Those of them that were read from.
    """

    prefix: str
    numbered: bool
    dtype: torch.dtype
    names: list[str]
    taken: set[str]

    def has(self, key: str) -> bool:
        """Whether there is a tensor of a key without layers and experts."""

    def shape(self, key: str, index: Sizes) -> Sizes:
        """The shape at an index of the axes that layers and experts have become; raises BAD_TENSOR."""

    def read(self, key: str, index: Sizes, starts: Sizes, sizes: Sizes) -> torch.Tensor:
        """Reads a box of it, on the CPU, in the dtype that it is stored in."""


def open_weights(folder: Path, stack: ExitStack) -> Weights:
    """Opens the weights of a folder until the stack closes them; raises BAD_CHECKPOINT where there are none."""
    if (folder / METADATA_FILE).is_file():
        return _TorchDist(folder, stack)
    if any(folder.glob("*.safetensors")):
        return _Safetensors(folder, stack)
    raise ShimError(
        Reason.BAD_CHECKPOINT,
        f"{folder} has neither a {METADATA_FILE} of the torch_dist format nor safetensors",
        "name the folder of one iteration, or save the checkpoint in the torch_dist format",
    )


class _TorchDist:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = TorchDistFolder(folder, stack)
        keys = self._folder.metadata.keys
        self.prefix = _prefix_of(keys, folder)
        self.numbered = not any(LAYER.search(key) for key in keys)
        self.dtype = DTYPES[self._folder.view(self.prefix + EMBEDDING).dtype]
        self.names = [name for key in _of_model(keys, self.prefix) for name in self._numbered_names(key)]
        self.taken: set[str] = set()

    def has(self, key: str) -> bool:
        return self.prefix + key in self._folder.metadata.keys

    def shape(self, key: str, index: Sizes) -> Sizes:
        return self._folder.view(key, index).shape

    def read(self, key: str, index: Sizes, starts: Sizes, sizes: Sizes) -> torch.Tensor:
        view = self._folder.view(key, index)
        self.taken.add(numbered_name(key, index))
        item_bytes = DTYPES[view.dtype].itemsize
        boxes = zip(view.shape, starts, sizes, strict=True)
        kept = tuple(None if count == size else np.arange(at, at + count) for size, at, count in boxes)
        out, done = np.empty(math.prod(sizes) * item_bytes, np.uint8), 0
        for block in view.read(BlockReader(), Region(0, view.shape, kept), item_bytes):
            out[done : done + block.size] = block
            done += block.size
        return torch.from_numpy(out).view(DTYPES[view.dtype]).reshape(sizes)

    def _numbered_names(self, key: str) -> Iterator[str]:
        axes = bool(LAYER.search(key)) + (EXPERTS in key)
        shape = self._folder.metadata.tensor(key).shape
        return (numbered_name(key, index) for index in np.ndindex(shape[:axes]))


class _Safetensors:
    """Each layer and each expert has tensors of its own; norms may be under either of their names."""

    prefix = ""
    numbered = False

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from safetensors import safe_open

        files = sorted(folder.glob("*.safetensors"))
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            files = sorted({folder / Path(name).name for name in read_json(index)["weight_map"].values()})
        opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
        self._files: dict[str, Any] = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 no mapping
        _prefix_of(self._files, folder)
        self.names = list(_of_model(self._files, self.prefix))
        self.taken: set[str] = set()
        self.dtype = self._slice(EMBEDDING)[0:1].dtype

    def has(self, key: str) -> bool:
        return key in self._files

    def shape(self, key: str, index: Sizes) -> Sizes:
        return tuple(self._slice(self._name(key, index)).get_shape())

    def read(self, key: str, index: Sizes, starts: Sizes, sizes: Sizes) -> torch.Tensor:
        box = tuple(slice(at, at + size) for at, size in zip(starts, sizes, strict=True))
        name = self._name(key, index)
        self.taken.add(name)
        read: torch.Tensor = self._slice(name)[box]
        return read

    def _slice(self, name: str) -> Any:
        return self._files[name].get_slice(name)

    def _name(self, key: str, index: Sizes) -> str:
        name = numbered_name(key, index)
        if name not in self._files:
            name = apart(name)
        if name not in self._files:
            raise ShimError(Reason.BAD_TENSOR, f"the checkpoint has no tensor {name}")
        return name


def numbered_name(key: str, index: Sizes) -> str:
    """The name of a tensor where layers and experts are numbered in it."""
    left = list(index)
    if LAYER.search(key):
        key = LAYER.sub(rf"\1layers.{left.pop(0)}.", key)
    if EXPERTS in key and left:
        key = key.replace(EXPERTS, f"mlp.experts.local_experts.{left.pop(0)}.")
    return key


def _of_model(keys: Iterable[str], prefix: str) -> Iterator[str]:
    """The keys of a model's own tensors: beside them lie those of its optimizer, and states of what runs it."""
    begins = tuple(prefix + part for part in ("embedding.", "decoder.", "output_layer."))
    return (key for key in keys if key.startswith(begins) and "._extra_state" not in key)


def _prefix_of(keys: Iterable[str], folder: Path) -> str:
    found = [key.removesuffix(EMBEDDING) for key in keys if key.endswith(EMBEDDING) and not key.startswith("optimizer")]
    if not found:
        raise ShimError(Reason.BAD_CHECKPOINT, f"{folder} has no {EMBEDDING}", "name the checkpoint of a GPTModel")
    return min(found, key=len)
