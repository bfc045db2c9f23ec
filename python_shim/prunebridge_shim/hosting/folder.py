"""Finds a Megatron checkpoint: its weights, and what states the network's sizes."""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist_names import COMMON_CLASSES
from prunebridge_shim.slicing.torch_dist_pickle import Record, read_pickle

TRACKER = "latest_checkpointed_iteration.txt"
BRIDGE_CONFIG = "run_config.yaml"
NEMO_CONFIG = "context/model.yaml"
COMMON_FILE = "common.pt"
OWN_CONFIG = "config.json"

Stated = Mapping[str, Any]
"""Fields under Megatron-Core's names."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint.

    Attributes:
        weights: The folder of its tensors.
        stated: What network it says it is.
        source: The file that says so.
    """

    weights: Path
    stated: Stated
    source: Path


def find_checkpoint(path: Path) -> Checkpoint:
    """Finds what Megatron-LM, Megatron-Bridge, NeMo 2 or this tool saved: a root, or one iteration's folder.

    Raises:
        ShimError: PATH_NOT_FOUND, or BAD_CHECKPOINT where nothing states the sizes.
    """
    if not path.is_dir():
        raise ShimError(Reason.PATH_NOT_FOUND, f"{path} is no folder on this machine", "name a checkpoint folder")
    weights = _follow_tracker(path)
    if (weights / "weights").is_dir():
        weights /= "weights"
    root = weights.parent if weights.name == "weights" else weights
    if (weights / BRIDGE_CONFIG).is_file():
        return Checkpoint(weights, _section(weights / BRIDGE_CONFIG, "model"), weights / BRIDGE_CONFIG)
    if (root / NEMO_CONFIG).is_file():
        return Checkpoint(weights, _section(root / NEMO_CONFIG, "config"), root / NEMO_CONFIG)
    own = weights / OWN_CONFIG
    if own.is_file() and (config := read_json(own)).get("architectures") == ["GPTModel"]:
        return Checkpoint(weights, config, own)
    if (weights / COMMON_FILE).is_file():
        return Checkpoint(weights, _from_arguments(weights / COMMON_FILE), weights / COMMON_FILE)
    raise ShimError(
        Reason.BAD_CHECKPOINT,
        f"{weights} has nothing that states the sizes under Megatron-Core's names",
        f"put Megatron-Bridge's {BRIDGE_CONFIG} into it, or name a folder with NeMo's {NEMO_CONFIG}, with"
        f" Megatron-LM's {COMMON_FILE}, or with a {OWN_CONFIG} of architecture GPTModel",
    )


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds an object; raises BAD_CHECKPOINT."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} holds no object")
    return document


def _follow_tracker(path: Path) -> Path:
    tracker = path / TRACKER
    if not tracker.is_file():
        return path
    text = tracker.read_text().strip()
    if not re.fullmatch(r"release|\d{1,12}", text):
        raise ShimError(Reason.BAD_CHECKPOINT, f"{tracker} states {text[:60]!r}, which is no iteration")
    folder = path / (text if text == "release" else f"iter_{text:0>7}")
    if not folder.is_dir():
        raise ShimError(Reason.BAD_CHECKPOINT, f"{tracker} names {folder.name}, which is not there")
    return folder


def _section(path: Path, name: str) -> Stated:
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} cannot be read: {error}") from error
    found = document.get(name) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} has no section {name!r}, which states the model's sizes")
    return {"max_position_embeddings": found.get("seq_length"), **found}


def _from_arguments(path: Path) -> Stated:
    """The arguments of Megatron-LM's training script, which spells some fields in its own way."""
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            common = read_pickle(archive.read(pickled), COMMON_CLASSES, str(path))
    except (zipfile.BadZipFile, ValueError) as error:
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} is no file of torch.save: {error}") from error
    found = common.get("args") if isinstance(common, dict) else None
    if not isinstance(found, Record) or not isinstance(found.state, dict):
        raise ShimError(Reason.BAD_CHECKPOINT, f"{path} holds no arguments that state the model's sizes")
    args = found.state
    return {
        **args,
        # Without the switch, the number of groups stands at 1 and means nothing.
        "num_query_groups": args.get("num_query_groups") if args.get("group_query_attention") else None,
        "num_moe_experts": args.get("num_experts"),
        "gated_linear_unit": bool(args.get("swiglu")) or bool(args.get("quick_geglu")),
        "activation_func": _activation_of(args),
        "layernorm_epsilon": args.get("norm_epsilon"),
        "layernorm_zero_centered_gamma": args.get("apply_layernorm_1p"),
        "vocab_size": args.get("vocab_size") or args.get("padded_vocab_size"),
        "share_embeddings_and_output_weights": not args.get("untie_embeddings_and_output_weights"),
        "rope_scaling": args.get("use_rope_scaling"),
        "seq_len_interpolation_factor": args.get("rotary_seq_len_interpolation_factor"),
    }


def _activation_of(args: Mapping[str, Any]) -> str:
    for switch, name in (("swiglu", "silu"), ("squared_relu", "squared_relu"), ("quick_geglu", "quick_gelu")):
        if args.get(switch):
            return name
    return "gelu"
