"""Folders that Megatron-Core itself saves, and the names of its tensors in them."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "test" / "golden"
SCRIPT = ROOT / "test" / "fixtures" / "python" / "megatron_folders.py"

PARENTS = {
    "llama": "llama-gqa",
    "llama-tp2": "llama-gqa",
    "llama-pp2": "llama-gqa",
    "llama-tp2-pp2": "llama-gqa",
    "nemo": "llama-gqa",
    "nemotron": "nemotron-mha",
    "nemotron-tp2": "nemotron-mha",
    "mixtral": "mixtral-small",
    "mixtral-ep2": "mixtral-small",
    "mixtral-numbered": "mixtral-small",
}

FUSED_NORMS = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}

needs_megatron = pytest.mark.skipif(importlib.util.find_spec("megatron") is None, reason="megatron-core is not there")


def save_parents(out):
    """Has Megatron-Core save the parents, each in a folder of its own."""
    done = subprocess.run(
        [sys.executable, SCRIPT, GOLDENS, out], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def parent_of(name):
    return load_file(GOLDENS / PARENTS[name] / "parent.mcore.safetensors")


def weights_of(out, name):
    return out / name / ("weights" if name == "nemo" else "iter_0000010")


def stored_as(tensor, *, numbered=False, prefix=""):
    """The key of a module's tensor, and its positions along the axes that layers and experts have become."""
    index = []
    key = tensor
    for name, fused in FUSED_NORMS.items():
        key = key.replace(name, fused)
    patterns = [(r"local_experts\.(\d+)\.", "experts.")]
    if not numbered:
        patterns.insert(0, (r"layers\.(\d+)\.", "layers."))
    for pattern, axis in patterns:
        if found := re.search(pattern, key):
            index.append(int(found[1]))
            key = key.replace(found[0], axis)
    return prefix + key, tuple(index)
