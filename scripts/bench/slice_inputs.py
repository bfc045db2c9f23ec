"""The naive way that slicing is measured against, the parents that are cut, and what other programs take.

`make DIR` writes a synthetic llama checkpoint: 8 layers, hidden 4096, ffn 14336, 32 heads in 8 groups, bfloat16, four shards, 3.76 GB.
`make-tiny DIR` writes one of a few kilobytes.
`naive DIR PLAN OUT` loads the whole state dict, picks indices, and saves it.
`run COMMAND...` runs a program. This and the naive way print their seconds, CPU seconds and peak memory in MB as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Sizes:
    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    head_dim: int
    vocab: int
    files: int


PARENT = Sizes(8, 4096, 14336, 32, 8, 128, 16384, 4)
TINY = Sizes(1, 64, 128, 2, 1, 32, 256, 1)


def config_of(sizes: Sizes) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.ffn,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.groups,
        "head_dim": sizes.head_dim,
        "vocab_size": sizes.vocab,
        "dtype": "bfloat16",
    }


def shapes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocab, sizes.hidden)}
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": (sizes.hidden,),
            f"{at}.self_attn.q_proj.weight": (sizes.heads * sizes.head_dim, sizes.hidden),
            f"{at}.self_attn.k_proj.weight": (sizes.groups * sizes.head_dim, sizes.hidden),
            f"{at}.self_attn.v_proj.weight": (sizes.groups * sizes.head_dim, sizes.hidden),
            f"{at}.self_attn.o_proj.weight": (sizes.hidden, sizes.heads * sizes.head_dim),
            f"{at}.post_attention_layernorm.weight": (sizes.hidden,),
            f"{at}.mlp.gate_proj.weight": (sizes.ffn, sizes.hidden),
            f"{at}.mlp.up_proj.weight": (sizes.ffn, sizes.hidden),
            f"{at}.mlp.down_proj.weight": (sizes.hidden, sizes.ffn),
        }
    return found | {"model.norm.weight": (sizes.hidden,), "lm_head.weight": (sizes.vocab, sizes.hidden)}


def make(folder: Path, sizes: Sizes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shapes = shapes_of(sizes)
    names = list(shapes)
    per_file = -(-len(names) // sizes.files)
    noise = np.random.default_rng(0).integers(0, 256, 1 << 24, dtype=np.uint8).tobytes()
    weight_map = {}
    for number in range(sizes.files):
        file = f"model-{number + 1:05d}-of-{sizes.files:05d}.safetensors"
        header, offset = {}, 0
        for name in names[number * per_file : (number + 1) * per_file]:
            size = int(np.prod(shapes[name])) * 2
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [offset, offset + size]}
            offset += size
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            while offset > 0:
                offset -= out.write(noise[: min(offset, len(noise))])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config_of(sizes)))


def naive(folder: Path, plan: Path, out: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    began, cpu = time.perf_counter(), time.process_time()
    child = json.loads(plan.read_text())["child"]["hyperparameters"]
    keep = {PARENT.hidden: child["hidden_size"], PARENT.ffn: child["ffn_hidden_size"]}
    by_group = torch.arange(PARENT.heads * PARENT.head_dim).unflatten(0, (PARENT.groups, -1, PARENT.head_dim))
    heads = by_group[:, : child["num_attention_heads"] // PARENT.groups].flatten()
    weights = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
    for name, tensor in weights.items():
        for axis, size in enumerate(tensor.shape):
            if (axis == 0 and "q_proj" in name) or (axis == 1 and "o_proj" in name):
                tensor = tensor.index_select(axis, heads)
            elif size in keep:
                tensor = tensor.index_select(axis, torch.arange(keep[size]))
        weights[name] = tensor
    save_file(weights, out)
    tell(time.perf_counter() - began, time.process_time() - cpu, resource.RUSAGE_SELF)


def run(*command: str) -> None:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    tell(time.perf_counter() - began, used.ru_utime + used.ru_stime, resource.RUSAGE_CHILDREN)


def tell(wall: float, cpu: float, who: int) -> None:
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": resource.getrusage(who).ru_maxrss // 1024}))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "run":
        run(*rest)
    elif command == "naive":
        naive(*map(Path, rest))
    else:
        make(Path(rest[0]), {"make": PARENT, "make-tiny": TINY}[command])
