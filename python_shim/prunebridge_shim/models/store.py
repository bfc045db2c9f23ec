"""The models that are open, by their ids."""

import secrets
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError


class ModelStore:
    """Models, networks of any kind and views of both by id. Only the thread that runs operations touches it."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._parents: dict[str, str] = {}
        self._networks: set[str] = set()

    def add(self, model: Any) -> str:
        """Keeps a model; gives its id, which nobody can guess: who was not told it cannot close the model."""
        model_id = f"model-{secrets.token_hex(8)}"
        self._models[model_id] = model
        return model_id

    def add_network(self, network: Any) -> str:
        """Keeps a network, of which nothing is known but that it is a module; gives its id."""
        network_id = self.add(network)
        self._networks.add(network_id)
        return network_id

    def add_view(self, view: Any, parent_id: str) -> str:
        """Keeps a view for as long as its parent is kept; gives its id."""
        view_id = self.add_network(view) if self.is_network(parent_id) else self.add(view)
        self._parents[view_id] = parent_id
        return view_id

    def is_network(self, model_id: str) -> bool:
        """Whether it is a network of any kind, or a view of one."""
        return model_id in self._networks

    def get_language_model(self, model_id: str) -> Any:
        """Looks up a language model or a view of one; raises UNKNOWN_MODEL, or INVALID_REQUEST for a network."""
        model = self.get(model_id)
        if self.is_network(model_id):
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"{model_id} was opened as a network, and this is work on language models",
                "open it with OpenModel, or run it with Forward",
            )
        return model

    def get(self, model_id: str) -> Any:
        """Looks up a model or a view; raises UNKNOWN_MODEL."""
        self._check(model_id)
        return self._models[model_id]

    def get_parent(self, model_id: str) -> Any:
        """Looks up a model that holds its own weights; raises UNKNOWN_MODEL, or INVALID_REQUEST for a view."""
        model = self.get(model_id)
        if model_id in self._parents:
            parent_id = self._parents[model_id]
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"{model_id} is a view of {parent_id} and holds no weights of its own",
                f"cut {parent_id}, or open another view of it",
            )
        return model

    def get_unviewed(self, model_id: str) -> Any:
        """Looks up a model of which there is no view; raises as `get_parent`, and INVALID_REQUEST where there is."""
        model = self.get_parent(model_id)
        views = self._views_of(model_id)
        if views:
            raise ShimError(
                Reason.INVALID_REQUEST, f"{model_id} has open views: {', '.join(views)}", "close them before it is cut"
            )
        return model

    def put(self, model_id: str, model: Any, *, is_network: bool) -> None:
        """Keeps a model or a network under an id that was given before."""
        self._models[model_id] = model
        if is_network:
            self._networks.add(model_id)

    def remove(self, model_id: str) -> None:
        """Forgets a model with its views and gives its memory back; raises UNKNOWN_MODEL."""
        self._check(model_id)
        for one in (*self._views_of(model_id), model_id):
            del self._models[one]
            self._parents.pop(one, None)
            self._networks.discard(one)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _views_of(self, model_id: str) -> list[str]:
        return [view_id for view_id, parent_id in self._parents.items() if parent_id == model_id]

    def _check(self, model_id: str) -> None:
        if model_id not in self._models:
            raise ShimError(
                Reason.UNKNOWN_MODEL,
                f"no model {model_id!r} is open",
                "its id is told when it is opened; another boot id means that all are gone",
            )


def pick_device(name: str) -> torch.device:
    """Resolves `auto` or torch's own spelling; raises INVALID_REQUEST for a device that this machine lacks."""
    cuda = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "cpu")
    present = ["cpu", *(f"cuda:{index}" for index in range(cuda))]
    if (name == "cuda" and cuda) or name in present:
        return torch.device(name)
    raise ShimError(Reason.INVALID_REQUEST, f"there is no device {name!r}", f"present are {', '.join(present)}")


def device_of(model: Any) -> torch.device:
    """Where a module's parameters are, or its buffers where it has none."""
    return next((tensor.device for tensor in _tensors_of(model)), torch.device("cpu"))


def dtype_of(model: Any) -> torch.dtype:
    """That of the first floating-point tensor of a module."""
    return next((tensor.dtype for tensor in _tensors_of(model) if tensor.is_floating_point()), torch.float32)


def _tensors_of(model: Any) -> Iterator[torch.Tensor]:
    return chain(model.parameters(), model.buffers())


def count_parameters(model: Any) -> int:
    """Elements of all parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
