"""Children of the golden parents, smaller along every axis at once, as shards in Megatron's layout or in another."""

import os
import re
from dataclasses import replace

import numpy as np
from golden import case_of

from prunebridge_shim.cluster.norms import FUSED_WITH
from prunebridge_shim.slicing.headers import open_shard, read_header
from prunebridge_shim.slicing.request import OutputShard, TensorPart, TensorSlice

PARENT = "parent.mcore.safetensors"


def child_of(parent, apart=False, tied=False):
    """Shards and index sets of a child that lacks a layer and some channels, heads, groups and experts of the rest.

    Args:
        parent: The parent's file, which lies in a folder of its case's name.
        apart: Whether what Megatron-Core joins is taken apart, as Hugging Face has it.
        tied: Whether the output layer is the embedding.
    """
    return _Maker(parent, apart).make(tied)


def as_checkpointed(shards):
    """The same shards, of a checkpoint that Megatron-Core saves: layers and experts have become axes there."""
    return [replace(shard, tensors=tuple(map(_of_checkpoint, shard.tensors))) for shard in shards]


def _of_checkpoint(tensor):
    parts = []
    for part in tensor.parts:
        key, index = part.source_name, []
        for number, axis in ((r"layers\.(\d+)\.", "layers."), (r"local_experts\.(\d+)\.", "experts.")):
            if found := re.search(number, key):
                index.append(int(found[1]))
                key = key.replace(found[0], axis)
        for norm, fused in FUSED_WITH.items():
            key = key.replace(f".{norm}.", f".{fused}.layer_norm_")
        parts.append(replace(part, source_file=".metadata", source_name=key, index=tuple(index)))
    return replace(tensor, parts=tuple(parts))


class _Maker:
    def __init__(self, parent, apart):
        self.case = case_of(parent.parent.name)
        fd = open_shard(parent)
        self.stored = read_header(fd, str(parent))
        os.close(fd)
        self.apart = apart
        self.random = np.random.default_rng(self.case["seed"])
        self.sets = {"hidden": self.choose(self.case["hidden_size"])}

    def make(self, tied):
        layers = [layer for layer in range(self.case["num_layers"]) if layer != 1]
        tensors = [
            self.cut("embedding.word_embeddings.weight", "", "hidden"),
            *(tensor for number, layer in enumerate(layers) for tensor in self.layer(layer, number)),
            *self.norm("decoder.final_layernorm", "decoder.final_layernorm"),
            *(() if tied else (self.cut("output_layer.weight", "", "hidden"),)),
        ]
        middle = len(tensors) // 2
        shards = [
            OutputShard("model-00001-of-00002.safetensors", {"format": "pt"}, tuple(tensors[:middle])),
            OutputShard("model-00002-of-00002.safetensors", {"format": "pt"}, tuple(tensors[middle:])),
        ]
        return shards, self.sets

    def layer(self, layer, number):
        old, new = f"decoder.layers.{layer}", f"decoder.layers.{number}"
        yield from self.norm(f"{old}.input_layernorm", f"{new}.input_layernorm")
        yield from self.attention(f"{old}.self_attention", f"{new}.self_attention", layer)
        yield from self.norm(f"{old}.pre_mlp_layernorm", f"{new}.pre_mlp_layernorm")
        if "num_moe_experts" not in self.case:
            yield from self.feed_forward(f"{old}.mlp", f"{new}.mlp", self.case["ffn_hidden_size"])
            return
        experts = self.choose(self.case["num_moe_experts"])
        self.sets[f"experts.{layer}"] = experts
        yield self.cut(f"{old}.mlp.router.weight", f"experts.{layer}", "hidden", name=f"{new}.mlp.router.weight")
        for number_of_expert, expert in enumerate(experts.tolist()):
            places = [f"{each}.mlp.experts.local_experts" for each in (old, new)]
            widths = self.case["moe_ffn_hidden_size"]
            yield from self.feed_forward(f"{places[0]}.{expert}", f"{places[1]}.{number_of_expert}", widths)

    def attention(self, old, new, layer):
        """Of each group that stays other heads stay, as many."""
        groups, width = self.case["num_query_groups"], self.case["kv_channels"]
        each = self.case["num_attention_heads"] // groups
        kept = [(group, self.choose(each).tolist()) for group in self.choose(groups).tolist()]
        heads = [(each + 2) * group + head for group, of_group in kept for head in of_group]
        channels = np.arange(width)
        rows = {
            "q_proj": np.add.outer(np.array(heads) * width, channels).flatten(),
            "k_proj": np.add.outer(
                np.array([(each + 2) * group + each for group, _ in kept]) * width, channels
            ).flatten(),
        }
        rows["v_proj"] = rows["k_proj"] + width
        columns = [each * group + head for group, of_group in kept for head in of_group]
        self.sets[f"proj.{layer}"] = np.add.outer(np.array(columns) * width, channels).flatten()
        if not self.apart:
            rows = {"linear_qkv": np.sort(np.concatenate(list(rows.values())))}
        for name, kept_rows in rows.items():
            self.sets[f"{name}.{layer}"] = kept_rows
            yield self.cut(f"{old}.linear_qkv.weight", f"{name}.{layer}", "hidden", name=f"{new}.{name}.weight")
        yield self.cut(f"{old}.linear_proj.weight", "hidden", f"proj.{layer}", name=f"{new}.linear_proj.weight")

    def feed_forward(self, old, new, width):
        columns, first = self.choose(width), f"{old}.linear_fc1.weight"
        is_gated = self.case["act"] == "swiglu"
        self.sets |= {f"fc2 {new}": columns, f"up {new}": columns + width if is_gated else columns}
        self.sets[f"fc1 {new}"] = np.concatenate([columns, columns + width]) if is_gated else columns
        if self.apart and is_gated:
            yield self.cut(first, f"fc2 {new}", "hidden", name=f"{new}.gate_proj.weight")
            yield self.cut(first, f"up {new}", "hidden", name=f"{new}.up_proj.weight")
            # Joined the other way round.
            parts = (self.part(first, f"up {new}", "hidden"), self.part(first, f"fc2 {new}", "hidden"))
            yield TensorSlice(f"{new}.up_and_gate.weight", parts)
        else:
            yield self.cut(first, f"fc1 {new}", "hidden", name=f"{new}.linear_fc1.weight")
        yield self.cut(f"{old}.linear_fc2.weight", "hidden", f"fc2 {new}", name=f"{new}.linear_fc2.weight")

    def norm(self, old, new):
        for part in ("weight", "bias"):
            if f"{old}.{part}" in self.stored:
                # Around zero, as some families have them apart from Megatron-Core.
                shift = -1.0 if self.apart and part == "weight" else 0.0
                parts = (replace(self.part(f"{old}.{part}", "hidden"), shift=shift),)
                yield TensorSlice(f"{new}.{part}", parts)

    def cut(self, source, *axes, name=None):
        return TensorSlice(name or source, (self.part(source, *axes),))

    def part(self, source, *axes):
        stored = self.stored[source]
        return TensorPart(PARENT, source, stored.dtype, stored.shape, axes)

    def choose(self, size):
        return np.sort(self.random.choice(size, -(-3 * size // 5), replace=False))
