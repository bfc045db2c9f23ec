"""Children of any model, cut by shape alone: what is kept of each axis is random, since only the cutting is tested."""

import json

import numpy as np
from parts import cut_of

from prunebridge_shim.subnet.child import build_child, stored_tensors

SMALLER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 20,
    "moe_shared_expert_intermediate_size": 20,
    "mamba_num_heads": 2,
}
LAYERS = [0, 2]


def smaller_config(model, **changes):
    """The config of a child that is smaller wherever it can be, and that lacks the second of three layers."""
    values = json.loads(model.config.to_json_string(use_diff=False))
    values |= {field: size for field, size in SMALLER.items() if field in values}
    if "layers_block_type" not in values:
        values["num_hidden_layers"] = len(LAYERS)
        if values.get("layer_types"):
            values["layer_types"] = [values["layer_types"][layer] for layer in LAYERS]
    return json.dumps({**values, "head_dim": 8, **changes})


def random_slices(model, config, rng):
    """Slices that make a child of a config, and their index sets. Packed experts each keep positions of their own."""
    parents, sets, slices = stored_tensors(model), {}, []

    def keep(name, size, count):
        if size == count:
            return ""
        sets[name] = np.sort(rng.choice(size, count, replace=False))
        return name

    for name, tensor in stored_tensors(build_child(model, config)).items():
        source = name if "layers_block_type" in config else source_of(name)
        shape, cut = tuple(parents[source].shape), tuple(tensor.shape)
        sizes = list(zip(shape, cut, strict=True))
        axes = tuple(keep(f"{name}.{axis}", *pair) for axis, pair in enumerate(sizes))
        blocks = ()
        if ".experts." in name:
            axes, inner = axes[:1], sizes[1:]
            blocks = tuple(
                tuple(keep(f"{name}.{expert}.{axis}", *pair) for axis, pair in enumerate(inner, 1))
                for expert in range(cut[0])
            )
        slices.append(cut_of(name, "model.safetensors", source, "F32", shape, axes, blocks))
    return slices, sets


def source_of(name):
    parts = name.split(".")
    if parts[1] == "layers":
        parts[2] = str(LAYERS[int(parts[2])])
    return ".".join(parts)
