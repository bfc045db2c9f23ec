"""Parts of a Megatron-Core layer that otherwise need Transformer Engine, in plain torch."""

import torch
import torch.nn.functional as F  # noqa: N812 torch's own convention
from megatron.core import parallel_state as ps
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import TEGroupedMLP
from megatron.core.transformer.spec_utils import ModuleSpec
from torch import nn


def layer_spec(config, fused_norms=False, grouped_experts=False):
    """The local layer spec with norms that know sequence parallelism, and attention that knows context parallelism.

    Args:
        config: Of the model.
        fused_norms: Whether norms are one with the projection behind them, where there is one.
        grouped_experts: Whether all experts of a layer are one module.
    """
    spec = get_gpt_layer_local_spec(num_experts=config.num_moe_experts, normalization=config.normalization)
    parts = spec.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = Norm
    if config.context_parallel_size > 1:
        parts.self_attention.submodules.core_attention = GatheringAttention
    if fused_norms:
        parts.input_layernorm = IdentityOp
        parts.self_attention.submodules.linear_qkv = NormColumnParallelLinear
    if fused_norms and config.num_moe_experts is None:
        parts.pre_mlp_layernorm = IdentityOp
        parts.mlp.submodules.linear_fc1 = NormColumnParallelLinear
    if grouped_experts:
        parts.mlp.submodules.experts = ModuleSpec(
            TEGroupedMLP, submodules=MLPSubmodules(linear_fc1=GroupedLinear, linear_fc2=GroupedLinear)
        )
    return spec


def normalise(x, config, weight, bias):
    if config.normalization == "RMSNorm":
        return F.rms_norm(x, weight.shape, weight, config.layernorm_epsilon)
    return F.layer_norm(x, weight.shape, weight, bias, config.layernorm_epsilon)


class Norm(nn.Module):
    def __init__(self, config, hidden_size, **_options):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size)) if config.normalization == "LayerNorm" else None
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel

    def forward(self, x):
        return normalise(x, self.config, self.weight, self.bias)


class NormColumnParallelLinear(ColumnParallelLinear):
    """A norm and the projection behind it in one module, under the names that Transformer Engine gives their parts."""

    def __init__(self, input_size, output_size, *, config, **options):
        super().__init__(input_size, output_size, config=config, **options)
        self.normalization = config.normalization
        self.eps = config.layernorm_epsilon
        self.zero_centered_gamma = False
        self.layer_norm_weight = nn.Parameter(torch.ones(input_size))
        self.layer_norm_bias = nn.Parameter(torch.zeros(input_size)) if self.normalization == "LayerNorm" else None

    def forward(self, x, *args, **options):
        return super().forward(
            normalise(x, self.config, self.layer_norm_weight, self.layer_norm_bias), *args, **options
        )


class GroupedLinear(nn.Module):
    """The projections of all experts in one module, as Transformer Engine has it."""

    def __init__(self, experts, input_size, output_size, **_options):
        super().__init__()
        self.experts = experts
        for expert in range(experts):
            self.register_parameter(f"weight{expert}", nn.Parameter(torch.zeros(output_size, input_size)))

    def forward(self, x, splits):
        parts = [F.linear(part, getattr(self, f"weight{expert}")) for expert, part in enumerate(x.split(splits))]
        return torch.cat(parts), None

    def sharded_state_dict(self, prefix="", sharded_offsets=(), metadata=None):
        """The weights as slices of one tensor over all experts, the keys of which have no numbers."""
        axis, first = len(sharded_offsets), self.experts * ps.get_expert_model_parallel_rank()
        count = self.experts * ps.get_expert_model_parallel_world_size()
        replica = (0, 0, ps.get_expert_data_parallel_rank())
        return {
            f"{prefix}weight{expert}": ShardedTensor.from_rank_offsets(
                f"{prefix}weight",
                getattr(self, f"weight{expert}"),
                *sharded_offsets,
                (axis, first + expert, count),
                replica_id=replica,
                prepend_axis_num=axis + 1,
            )
            for expert in range(self.experts)
        }


class GatheringAttention(nn.Module):
    """Attention over all context parallel ranks' keys: each rank's chunks are its own and the mirrored one."""

    def __init__(self, config, layer_number, attn_mask_type, attention_type, **options):
        super().__init__()
        self.size, config.context_parallel_size = config.context_parallel_size, 1
        self.attention = DotProductAttention(config, layer_number, attn_mask_type, attention_type)
        config.context_parallel_size = self.size

    def forward(self, query, key, value, _mask, **_options):
        group, rank = ps.get_context_parallel_group(), ps.get_context_parallel_rank()
        keys, values = (self._in_order(self._gather(x, group)) for x in (key, value))
        chunk = query.shape[0] // 2
        at = torch.cat([torch.arange(chunk) + chunk * place for place in (rank, 2 * self.size - 1 - rank)])
        whole = torch.zeros(query.shape[0] * self.size, *query.shape[1:]).index_copy(0, at, query)
        return self.attention(whole, keys, values, None)[at]

    def _gather(self, x, group):
        parts = [torch.empty_like(x) for _ in range(self.size)]
        torch.distributed.all_gather(parts, x.contiguous(), group=group)
        return parts

    def _in_order(self, parts):
        halves = [part.chunk(2) for part in parts]
        return torch.cat([first for first, _ in halves] + [second for _, second in reversed(halves)])
