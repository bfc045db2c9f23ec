"""The models that are open, by their ids."""

import itertools
from typing import Any

import torch

from prunebridge_shim.errors import Reason, ShimError


class ModelStore:
    """Models by id. Only the thread that runs operations touches it."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._numbers = itertools.count(1)

    def add(self, model: Any) -> str:
        """Keeps a model; gives its id."""
        model_id = f"model-{next(self._numbers)}"
        self._models[model_id] = model
        return model_id

    def get(self, model_id: str) -> Any:
        """Looks up a model; raises UNKNOWN_MODEL."""
        self._check(model_id)
        return self._models[model_id]

    def put(self, model_id: str, model: Any) -> None:
        """Keeps a model under an id that was given before."""
        self._models[model_id] = model

    def remove(self, model_id: str) -> None:
        """Forgets a model and gives its memory back; raises UNKNOWN_MODEL."""
        self._check(model_id)
        del self._models[model_id]
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _check(self, model_id: str) -> None:
        if model_id not in self._models:
            known = ", ".join(self._models) or "none"
            raise ShimError(Reason.UNKNOWN_MODEL, f"no model {model_id!r} is open", f"open are: {known}")


def pick_device(name: str) -> torch.device:
    """Resolves `auto` or torch's own spelling; raises INVALID_REQUEST for a device that this machine lacks."""
    cuda = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "cpu")
    present = ["cpu", *(f"cuda:{index}" for index in range(cuda))]
    if (name == "cuda" and cuda) or name in present:
        return torch.device(name)
    raise ShimError(Reason.INVALID_REQUEST, f"there is no device {name!r}", f"present are {', '.join(present)}")


def count_parameters(model: Any) -> int:
    """Elements of all parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
