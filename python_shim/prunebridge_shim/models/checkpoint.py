"""Loads a Hugging Face checkpoint folder."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory
from prunebridge_shim.models.fetching import check_fetches_nothing
from prunebridge_shim.models.folder import bad_checkpoint, existing_folder
from prunebridge_shim.models.strictness import allow_explicit_head_dim

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KEYS_NAMED = 5
KEY_FAULTS = {
    "missing_keys": "lacks",
    "unexpected_keys": "has no place for",
    "mismatched_keys": "has another shape for",
}

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load_model(path: str, device: torch.device, dtype: str, unread: Collection[str] = ()) -> Any:
    """Loads a model in eval mode, without gradients, from safetensors only and without remote code.

    Its class is the one that the config names, and a causal language model where it names none of transformers.

    Args:
        path: The checkpoint folder.
        device: Where its parameters go.
        dtype: A key of `DTYPES`; `auto` keeps the checkpoint's own.
        unread: Names of stored tensors that the model may have no place for.

    Raises:
        ShimError: PATH_NOT_FOUND, BAD_CHECKPOINT, or INVALID_REQUEST for an unknown dtype.
    """
    config = existing_config(path)
    allow_explicit_head_dim()
    return load_pretrained(_class_named_by(config), path, device, dtype, unread)


def existing_config(path: str) -> Path:
    """The config.json of a checkpoint folder; raises PATH_NOT_FOUND or BAD_CHECKPOINT."""
    config = existing_folder(path) / "config.json"
    if not config.is_file():
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} has no config.json", "name a Hugging Face checkpoint folder")
    return config


def load_pretrained(kind: Any, path: str, device: torch.device, dtype: str, unread: Collection[str] = ()) -> Any:
    """Loads a checkpoint folder by a class of transformers; arguments and all else as `load_model`."""
    check_dtype(dtype)
    _check_config(existing_config(path))
    try:
        model, info = kind.from_pretrained(
            path,
            **{_dtype_argument(): DTYPES[dtype]},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            # Reported with the missing and the left over below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers has no error type of its own
        if is_out_of_memory(error):
            raise
        raise bad_checkpoint(path, error) from error
    _check_keys(path, {**info, "unexpected_keys": set(info["unexpected_keys"]).difference(unread)})
    return model.eval().requires_grad_(False).to(device)


def check_dtype(dtype: str) -> None:
    """Raises INVALID_REQUEST for what is no key of `DTYPES`."""
    if dtype not in DTYPES:
        raise ShimError(Reason.INVALID_REQUEST, f"dtype {dtype!r} is none of {', '.join(DTYPES)}")


def _check_config(config: Path) -> None:
    try:
        found = json.loads(config.read_bytes())
    except ValueError:
        return  # whoever loads it says what is wrong with it
    if isinstance(found, dict):
        check_fetches_nothing(found, str(config), Reason.BAD_CHECKPOINT)


def _class_named_by(config: Path) -> Any:
    try:
        named = json.loads(config.read_bytes()).get("architectures")
    except (ValueError, AttributeError):
        named = None  # whoever loads it says what is wrong with it
    names = named if isinstance(named, list) else []
    found = [getattr(transformers, name, None) for name in names[:1] if isinstance(name, str)]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)]
    return kinds[0] if kinds else transformers.AutoModelForCausalLM


def _dtype_argument() -> str:
    major, minor = map(int, transformers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def _check_keys(path: str, info: dict[str, Any]) -> None:
    found = []
    for kind, what in KEY_FAULTS.items():
        keys = sorted(key if isinstance(key, str) else key[0] for key in info[kind])
        if keys:
            more = f" and {len(keys) - KEYS_NAMED} more" if len(keys) > KEYS_NAMED else ""
            found.append(f"{what} {', '.join(keys[:KEYS_NAMED])}{more}")
    if found:
        raise ShimError(
            Reason.BAD_CHECKPOINT,
            f"{path} does not hold what its config describes: it {'; it '.join(found)}",
            "check that config.json belongs to these weights",
        )
