"""The naive way that slicing is measured against, and the parent that both cut.

`make DIR` writes a synthetic llama checkpoint: 8 layers, hidden 4096, ffn 14336, 32 heads in 8 groups, bfloat16, four shards, 3.76 GB.
`naive DIR PLAN OUT` loads the whole state dict, picks indices, and saves it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

LAYERS, HIDDEN, FFN, HEADS, GROUPS, HEAD_DIM, VOCAB = 8, 4096, 14336, 32, 8, 128, 16384
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": HEAD_DIM,
    "vocab_size": VOCAB,
    "dtype": "bfloat16",
}


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": (HIDDEN,),
            f"{at}.self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.k_proj.weight": (GROUPS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.v_proj.weight": (GROUPS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
            f"{at}.post_attention_layernorm.weight": (HIDDEN,),
            f"{at}.mlp.gate_proj.weight": (FFN, HIDDEN),
            f"{at}.mlp.up_proj.weight": (FFN, HIDDEN),
            f"{at}.mlp.down_proj.weight": (HIDDEN, FFN),
        }
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = list(shapes())
    per_file = -(-len(names) // 4)
    noise = np.random.default_rng(0).integers(0, 256, 1 << 24, dtype=np.uint8).tobytes()
    weight_map = {}
    for number in range(4):
        file = f"model-{number + 1:05d}-of-00004.safetensors"
        header, offset = {}, 0
        for name in names[number * per_file : (number + 1) * per_file]:
            size = int(np.prod(shapes()[name])) * 2
            header[name] = {"dtype": "BF16", "shape": list(shapes()[name]), "data_offsets": [offset, offset + size]}
            offset += size
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            while offset > 0:
                offset -= out.write(noise[: min(offset, len(noise))])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def naive(folder: Path, plan: Path, out: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    began = time.perf_counter()
    child = json.loads(plan.read_text())["child"]["hyperparameters"]
    keep = {HIDDEN: child["hidden_size"], FFN: child["ffn_hidden_size"]}
    by_group = torch.arange(HEADS * HEAD_DIM).unflatten(0, (GROUPS, -1, HEAD_DIM))
    heads = by_group[:, : child["num_attention_heads"] // GROUPS].flatten()
    weights = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
    for name, tensor in weights.items():
        for axis, size in enumerate(tensor.shape):
            if (axis == 0 and "q_proj" in name) or (axis == 1 and "o_proj" in name):
                tensor = tensor.index_select(axis, heads)
            elif size in keep:
                tensor = tensor.index_select(axis, torch.arange(keep[size]))
        weights[name] = tensor
    save_file(weights, out)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"make": make, "naive": naive}[command](*map(Path, paths))
