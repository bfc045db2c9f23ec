"""Opens any PyTorch network: one that a Python function builds, one of transformers, or a pruned one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from prunebridge_shim.entry_points import EntryPoints, blaming
from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.models.checkpoint import DTYPES, check_dtype, existing_config, load_pretrained
from prunebridge_shim.models.fetching import check_fetches_nothing
from prunebridge_shim.networks.architecture import open_pruned
from prunebridge_shim.networks.child import build_child
from prunebridge_shim.networks.documents import parse_object
from prunebridge_shim.networks.weights import fill, read_weights


class NetworkOpener:
    """Opens networks in eval mode and without gradients. Nothing is unpickled, and only allowed functions run.

    Args:
        entry_points: The Python functions that may build one.
        device: Where its tensors go.
        dtype: A key of `models.checkpoint.DTYPES`; `auto` keeps what the weights are stored in.

    Raises:
        ShimError: INVALID_REQUEST for an unknown dtype.
    """

    def __init__(self, entry_points: EntryPoints, device: torch.device, dtype: str) -> None:
        check_dtype(dtype)
        self._entry_points = entry_points
        self._device = device
        self._dtype = dtype

    def built(self, entrypoint: str, kwargs: Mapping[str, Any], weights: Path | None) -> nn.Module:
        """Opens what a function gives, with the weights of a safetensors file or those that it has.

        Raises:
            ShimError: PYTHON_DENIED, PYTHON_FAILED where the function raises or gives no module, PATH_NOT_FOUND,
                BAD_CHECKPOINT where the file does not hold the network's state dict.
        """
        stored = None if weights is None else read_weights(weights)
        network = self._build(entrypoint, kwargs)
        if weights is not None and stored is not None:
            fill(network, stored, weights)
        return self._ready(network, entrypoint)

    def checkpoint(self, folder: str) -> nn.Module:
        """Opens a Hugging Face checkpoint by the class that its config names.

        Raises:
            ShimError: PATH_NOT_FOUND, BAD_CHECKPOINT.
        """
        path = existing_config(folder)
        config = parse_object(path.read_bytes(), str(path), Reason.BAD_CHECKPOINT)
        network: nn.Module = load_pretrained(
            class_of(config, str(path), Reason.BAD_CHECKPOINT), folder, self._device, self._dtype
        )
        return network

    def pruned(self, folder: Path) -> nn.Module:
        """Opens the folder of a pruned network; raises as `built`, and BAD_CHECKPOINT where its files do not agree."""
        return self._ready(open_pruned(folder, self._build_source), str(folder))

    def _build_source(self, source: Mapping[str, Any]) -> nn.Module:
        if "entrypoint" in source:
            return self._build(source["entrypoint"], source["kwargs"])
        name = source["transformers"]
        kind = class_of({"architectures": [name]}, "its architecture.json", Reason.BAD_CHECKPOINT)
        return build_of_config(kind, source["config"], Reason.BAD_CHECKPOINT)

    def _build(self, entrypoint: str, kwargs: Mapping[str, Any]) -> nn.Module:
        function: Callable[..., Any] = self._entry_points.find(entrypoint)
        with blaming(entrypoint):
            network = function(**kwargs)
        if not isinstance(network, nn.Module):
            raise ShimError(
                Reason.PYTHON_FAILED,
                f"{entrypoint} gave a {type(network).__name__} where a torch.nn.Module belongs",
                "name a function that builds a network and returns it",
            )
        # The function may keep it, and give it again.
        own: nn.Module = build_child(network, {}, {})
        return own

    def _ready(self, network: nn.Module, where: str) -> nn.Module:
        unmade = [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]
        if unmade:
            raise ShimError(
                Reason.PYTHON_FAILED,
                f"{where} gives a network without memory for {unmade[0]}",
                "build it on the CPU: what lies on the meta device has no values",
            )
        dtype: Any = None if self._dtype == "auto" else DTYPES[self._dtype]
        moved: nn.Module = network.eval().requires_grad_(False).to(device=self._device, dtype=dtype)
        return moved


def class_of(config: Mapping[str, Any], where: str, reason: Reason) -> Any:
    """The class of transformers that a config names; raises `reason`."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind
    raise ShimError(
        reason,
        f"{where} names {name!r} as its architecture, which is no model of transformers {transformers.__version__}",
        "its `architectures` name a class such as ResNetForImageClassification; remote code is never run",
    )


def build_of_config(kind: Any, config: Mapping[str, Any], reason: Reason) -> nn.Module:
    """Builds a model of transformers by a config; raises `reason` where that makes none, or fetches something."""
    check_fetches_nothing(config, "the config", reason)
    try:
        network: nn.Module = kind(kind.config_class.from_dict(dict(config)))
    except Exception as error:  # transformers raises whatever is at hand for a config that contradicts itself
        if is_out_of_memory(error):
            raise
        raise ShimError(reason, f"the config makes no {kind.__name__}: {type(error).__name__}: {error}") from error
    return network
