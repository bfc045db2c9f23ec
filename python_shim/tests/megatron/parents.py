"""The golden parents as Megatron-Core models, each rank with its own part of the weights."""

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention
from golden import GOLDEN, case_of
from layers import Norm, layer_spec
from megatron.core import parallel_state as ps
from megatron.core.activations import squared_relu
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from safetensors.torch import load_file


def calibration_of(name):
    """The golden batches [batches, B, S]."""
    return load_file(GOLDEN / name / "data.safetensors")["input_ids"]


def scores_of(name):
    return load_file(GOLDEN / name / "scores.safetensors")


def config_of(case, **options):
    experts = {}
    if "num_moe_experts" in case:
        experts = {
            "num_moe_experts": case["num_moe_experts"],
            "moe_ffn_hidden_size": case["moe_ffn_hidden_size"],
            "moe_router_topk": case["topk"],
            "moe_token_dispatcher_type": "allgather",
            "moe_router_load_balancing_type": "none",
            "expert_model_parallel_size": ps.get_expert_model_parallel_world_size(),
            "expert_tensor_parallel_size": ps.get_expert_tensor_parallel_world_size(),
        }
    gated = case["act"] == "swiglu"
    return TransformerConfig(
        **{
            "num_layers": case["num_layers"],
            "hidden_size": case["hidden_size"],
            "ffn_hidden_size": case["ffn_hidden_size"],
            "num_attention_heads": case["num_attention_heads"],
            "num_query_groups": case["num_query_groups"],
            "kv_channels": case["kv_channels"],
            "normalization": case["norm"],
            "gated_linear_unit": gated,
            "activation_func": F.silu if gated else squared_relu,
            "add_bias_linear": False,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "use_cpu_initialization": True,
            "bias_activation_fusion": False,
            "bias_dropout_fusion": False,
            "masked_softmax_fusion": False,
            "gradient_accumulation_fusion": False,
            "pipeline_dtype": torch.float32,
            "tensor_model_parallel_size": ps.get_tensor_model_parallel_world_size(),
            "pipeline_model_parallel_size": ps.get_pipeline_model_parallel_world_size(),
            "virtual_pipeline_model_parallel_size": ps.get_virtual_pipeline_model_parallel_world_size(),
            "context_parallel_size": ps.get_context_parallel_world_size(),
            **experts,
            **options,
        }
    )


def build(name, spec, tied=False, **options):
    """This rank's chunks of a golden parent, with its weights.

    Args:
        name: Of the parent.
        spec: Which of the layers' parts are fused.
        tied: Whether its output layer is to be the embedding; where another stage has that, it is loaded all the same.
        options: Of its config.
    """
    case = {**case_of(name), "tied": tied}
    config = config_of(case, **options)
    stages = range(config.virtual_pipeline_model_parallel_size or 1)
    chunks = [build_chunk(config, case, spec, stage if len(stages) > 1 else None) for stage in stages]
    weights = load_file(GOLDEN / name / "parent.mcore.safetensors")
    for chunk in chunks:
        load(chunk, weights)
    return chunks


def build_with_learned_positions(name, positions):
    """A model of a golden parent's sizes with weights of its own, which knows so many positions."""
    case = {**case_of(name), "tied": False}
    options = {"max_sequence_length": positions, "position_embedding_type": "learned_absolute"}
    return build_chunk(config_of(case), case, {}, None, **options)


def build_chunk(config, case, spec, vp_stage, **positions):
    layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return GPTModel(
        config=config,
        transformer_layer_spec=TransformerBlockSubmodules([layer_spec(config, **spec)] * layers, Norm),
        vocab_size=case["vocab_size"],
        pre_process=ps.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
        post_process=ps.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
        share_embeddings_and_output_weights=case["tied"],
        rotary_base=10000,
        vp_stage=vp_stage,
        **{"position_embedding_type": "rope", "max_sequence_length": 256, **positions},
    )


@torch.no_grad()
def load(chunk, weights):
    for name, parameter in chunk.named_parameters():
        parameter.copy_(part_of(weights[global_name(chunk, name)], name, chunk.config, parameter))


def global_name(chunk, name):
    """The name of a parameter where one rank holds the whole model, of the local layer spec."""
    parts = name.split(".")
    if parts[1] == "layers":
        parts[2] = str(chunk.decoder.layers[int(parts[2])].layer_number - 1)
    if "experts" in parts:
        held = chunk.config.num_moe_experts // ps.get_expert_model_parallel_world_size()
        first = held * ps.get_expert_model_parallel_rank()
        at = parts.index("experts") + 1
        if parts[at] != "local_experts":
            # Grouped experts number their weights.
            number, parts[-1] = parts[-1].removeprefix("weight"), "weight"
            parts[at:at] = ["local_experts", number]
        parts[at + 1] = str(first + int(parts[at + 1]))
    plain = ".".join(parts)
    for fused, norm in (("self_attention.linear_qkv", "input_layernorm"), ("mlp.linear_fc1", "pre_mlp_layernorm")):
        plain = plain.replace(f"{fused}.layer_norm_", f"{norm}.")
    return plain


def part_of(tensor, name, config, parameter):
    """What a rank holds of a tensor: rows or columns, with the two halves of a gated projection each cut."""
    if tensor.shape == parameter.shape:
        return tensor
    if ".experts." in name:
        rank, size = ps.get_expert_tensor_parallel_rank(), ps.get_expert_tensor_parallel_world_size()
    else:
        rank, size = ps.get_tensor_model_parallel_rank(), ps.get_tensor_model_parallel_world_size()
    if "linear_fc2" in name or "linear_proj" in name:
        return tensor.chunk(size, dim=1)[rank]
    if "linear_fc1" in name and config.gated_linear_unit:
        return torch.cat([half.chunk(size)[rank] for half in tensor.chunk(2)])
    return tensor.chunk(size)[rank]
