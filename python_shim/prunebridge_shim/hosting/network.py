"""The network that a checkpoint says it holds, in the arguments that Megatron-Core builds it from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.hosting.folder import Checkpoint

NEEDED = ("num_layers", "hidden_size", "num_attention_heads")
OF_CONFIG = (
    *NEEDED,
    *("ffn_hidden_size", "num_query_groups", "kv_channels", "normalization", "layernorm_epsilon"),
    *("layernorm_zero_centered_gamma", "gated_linear_unit", "add_bias_linear", "add_qkv_bias", "qk_layernorm"),
    *("apply_residual_connection_post_layernorm", "rotary_interleaved", "num_moe_experts", "moe_layer_freq"),
    *("moe_ffn_hidden_size", "moe_shared_expert_intermediate_size", "moe_shared_expert_gate", "moe_router_topk"),
    *("moe_router_num_groups", "moe_router_group_topk", "moe_router_pre_softmax", "moe_router_topk_scaling_factor"),
    *("moe_router_score_function", "moe_router_enable_expert_bias", "moe_apply_probs_on_input"),
)
OF_MODEL = (
    *("position_embedding_type", "rotary_percent", "rotary_base", "rope_scaling", "rope_scaling_factor"),
    *("share_embeddings_and_output_weights", "seq_len_interpolation_factor"),
)
FOREIGN = (
    *("multi_latent_attention", "is_hybrid_model", "hybrid_override_pattern", "hybrid_layer_pattern"),
    *("heterogeneous_layers_config_path", "heterogeneous_block_specs", "linear_attention_freq", "moe_latent_size"),
    *("mtp_num_layers", "window_size", "window_attn_skip_freq", "no_rope_freq", "qk_l2_norm"),
    *("attention_output_gate", "glu_linear_offset", "activation_func_clamp_value"),
    *("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"),
)
"""Fields that make another network of it, which is not built here."""

SCALED_ROPE = {"low_freq_factor": 1, "high_freq_factor": 4, "old_context_len": 8192}
"""What Megatron-Core scales rotary frequencies by, beside a factor. NeMo 2 states these for Llama 3.1 and 3.2."""

OWN_SCRIPT = "attach to a job that runs it in its own script"


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        config: Fields of a TransformerConfig.
        model: Arguments of a GPTModel.
        vocab_size: Its vocabulary, without padding; nothing where that is not stated.
        positions: The longest sequence that it is for.
    """

    config: Mapping[str, Any]
    model: Mapping[str, Any]
    vocab_size: int | None
    positions: int


def network_of(checkpoint: Checkpoint) -> Network:
    """Reads what a checkpoint states; raises BAD_CHECKPOINT where that is no GPT, or too little."""
    stated = {name: value for name, value in checkpoint.stated.items() if value is not None}
    for name in FOREIGN:
        if stated.get(name):
            raise _bad(checkpoint, f"sets {name}", OWN_SCRIPT)
    _check_attention(checkpoint, stated)
    for name in NEEDED:
        if not isinstance(stated.get(name), int):
            raise _bad(checkpoint, f"states no {name}", "name a checkpoint whose sizes are stated")
    config = {name: stated[name] for name in OF_CONFIG if name in stated}
    model = {name: stated[name] for name in OF_MODEL if name in stated} | _scaled_rope(checkpoint, stated)
    return Network(
        config={**config, "activation_func": _activation(checkpoint, stated)},
        model=model,
        vocab_size=stated.get("vocab_size"),
        positions=int(stated.get("max_position_embeddings") or 4096),
    )


def _check_attention(checkpoint: Checkpoint, stated: Mapping[str, Any]) -> None:
    softmax = stated.get("softmax_type", "vanilla")
    if softmax != "vanilla":
        raise _bad(checkpoint, f"sets softmax_type {softmax!r}", OWN_SCRIPT)
    # Gemma's scale their embeddings and norms in code of their own, and state nothing of it.
    kind = str(stated.get("_target_", ""))
    if "gemma" in kind.lower():
        raise _bad(checkpoint, f"is a {kind}", OWN_SCRIPT)


def _scaled_rope(checkpoint: Checkpoint, stated: Mapping[str, Any]) -> dict[str, Any]:
    if "scale_factor" not in stated:
        return {}
    for name, built in SCALED_ROPE.items():
        if stated.get(name, built) != built:
            raise _bad(checkpoint, f"sets {name} {stated[name]}, and Megatron-Core knows {built} alone", OWN_SCRIPT)
    return {"rope_scaling": True, "rope_scaling_factor": stated["scale_factor"]}


def _activation(checkpoint: Checkpoint, stated: Mapping[str, Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    from megatron.core.activations import quick_gelu, squared_relu

    known: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "silu": F.silu,
        "swiglu": F.silu,
        "gelu": F.gelu,
        "relu": F.relu,
        "squared_relu": squared_relu,
        "quick_gelu": quick_gelu,
    }
    given = stated.get("activation_func")
    # A document names a function by its path, as what is to be imported.
    name = str(given.get("_target_") if isinstance(given, Mapping) else given).rpartition(".")[2]
    if given is None and stated.get("gated_linear_unit"):
        name = "silu"
    if name not in known:
        raise _bad(checkpoint, f"states the activation {given!r}", f"known are {', '.join(known)}")
    return known[name]


def _bad(checkpoint: Checkpoint, message: str, hint: str) -> ShimError:
    return ShimError(Reason.BAD_CHECKPOINT, f"{checkpoint.source} {message}, of which no network is built here", hint)
