"""What a job and its model are, for those who decide what to prune."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from prunebridge_shim.cluster.layout import Layout, split_axis
from prunebridge_shim.cluster.rank import Rank
from prunebridge_shim.errors import Reason, ShimError

OF_CONFIG = (
    *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"),
    *("normalization", "layernorm_epsilon", "layernorm_zero_centered_gamma", "gated_linear_unit", "activation_func"),
    *("add_bias_linear", "add_qkv_bias", "qk_layernorm", "qk_l2_norm", "attention_output_gate", "softmax_type"),
    *("apply_residual_connection_post_layernorm", "rotary_interleaved", "window_size", "window_attn_skip_freq"),
    *("glu_linear_offset", "activation_func_clamp_value", "no_rope_freq", "mtp_num_layers"),
    *("num_moe_experts", "moe_layer_freq", "moe_ffn_hidden_size", "moe_shared_expert_intermediate_size"),
    *("moe_shared_expert_gate", "moe_router_topk", "moe_router_num_groups", "moe_router_group_topk"),
    *("moe_router_pre_softmax", "moe_router_topk_scaling_factor", "moe_router_score_function"),
    *("moe_router_enable_expert_bias", "moe_apply_probs_on_input", "moe_latent_size"),
    *("multi_latent_attention", "is_hybrid_model", "heterogeneous_block_specs", "linear_attention_freq"),
)
"""Fields of a TransformerConfig that say what network it is."""

OF_MODEL = ("position_embedding_type", "share_embeddings_and_output_weights", "rotary_base", "rotary_percent")
"""Fields of a GPTModel that do."""

EXPERTS = "experts"


@dataclass(frozen=True)
class Facts:
    """What a job and its model are.

    Attributes:
        layout: The leader's place, with the sizes of the parallel layout.
        world_size: The ranks of the job.
        config: What network it is, under Megatron-Core's names, as JSON has it.
        parameters: Elements of all parameters over all ranks, replicated and tied ones once.
        dtype: That of the parameters, as torch spells it.
        device: The leader's.
    """

    layout: Layout
    world_size: int
    config: dict[str, Any]
    parameters: int
    dtype: str
    device: str


def find_facts(rank: Rank) -> Facts:
    """Finds what the job and its model are; every rank has to call it. It is right on the leader."""
    first = rank.model.chunks[0]
    dtypes = (str(parameter.dtype).removeprefix("torch.") for parameter in first.parameters())
    counts = rank.exchange.gather_everywhere(sum(count_own(chunk, rank.layout) for chunk in rank.model.chunks))
    return Facts(
        layout=rank.layout,
        world_size=rank.exchange.size,
        config=describe(first),
        parameters=sum(counts),
        dtype=next(dtypes, "float32"),
        device=str(rank.model.device),
    )


def describe(chunk: Any) -> dict[str, Any]:
    """The config of a model by a chunk of it; raises INVALID_REQUEST for one that is not Megatron-Core's."""
    from megatron.core.models.gpt.gpt_model import GPTModel

    config = getattr(chunk, "config", None)
    if not hasattr(config, "num_layers") or not hasattr(chunk, "vocab_size"):
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{type(chunk).__name__} is no language model of Megatron-Core's: it has no config or no vocabulary",
            "attach takes what the job's model provider builds, or the list of its chunks",
        )
    stated = {name: _plain(getattr(config, name, None)) for name in OF_CONFIG}
    stated |= {name: _plain(getattr(chunk, name, None)) for name in OF_MODEL}
    # What a model is built with is padded for its ranks; the configs of Megatron-Bridge and NeMo know what was padded.
    stated["vocab_size"] = getattr(config, "vocab_size", None) or chunk.vocab_size
    stated["padded_vocab_size"] = chunk.vocab_size
    stated["max_position_embeddings"] = chunk.max_sequence_length
    kind = GPTModel if isinstance(chunk, GPTModel) else type(chunk)
    known = {name: value for name, value in stated.items() if value is not None}
    return {"architectures": [kind.__name__], **known}


def count_own(chunk: Any, layout: Layout) -> int:
    """Elements of the parameters of a chunk that are to be counted on this rank, of those ranks that hold the same."""
    return sum(
        parameter.numel()
        for path, module in chunk.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if _counts(module, name, EXPERTS in path.split("."), layout) and not _is_copy(f"{path}.{name}", chunk)
    )


def _counts(module: nn.Module, name: str, is_expert: bool, layout: Layout) -> bool:
    channels = layout.expert_tensor if is_expert else layout.tensor
    is_first = layout.expert_data.rank == 0 if is_expert else layout.data.rank == layout.context.rank == 0
    return is_first and (channels.rank == 0 or _is_split(module, name))


def _is_split(module: nn.Module, name: str) -> bool:
    """Whether each tensor parallel rank has a part of its own of a parameter."""
    marked = getattr(getattr(module, name), "tensor_model_parallel", False)
    return (
        bool(marked) or (split_axis(module) == 0 and name == "bias") or (split_axis(module) >= 0 and name == "weight")
    )


def _is_copy(name: str, chunk: Any) -> bool:
    """Whether a tied output layer holds a copy of an embedding that lies on another stage."""
    tied = getattr(chunk, "share_embeddings_and_output_weights", False)
    return bool(tied and name == "output_layer.weight" and not chunk.pre_process)


def _plain(value: Any) -> Any:
    """A field as JSON has it: a function by its name, a description of layers by its being there."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return getattr(value, "__name__", True)
