"""Builds a rank's part of a checkpoint's network with Megatron-Core, and fills it."""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.hosting.folder import find_checkpoint
from prunebridge_shim.hosting.network import Network, network_of
from prunebridge_shim.hosting.reading import Reading, reading_of
from prunebridge_shim.hosting.sizes import Sizes
from prunebridge_shim.hosting.weights import EMBEDDING, OUTPUT_LAYER, Weights, open_weights

ON_CPU = {
    "use_cpu_initialization": True,
    "bias_activation_fusion": False,
    "masked_softmax_fusion": False,
    "bias_dropout_fusion": False,
    "gradient_accumulation_fusion": False,
}
"""What of Megatron-Core runs without a GPU."""


@dataclass(frozen=True)
class Wanted:
    """How a model is to be held: the dtype, as torch spells it or `auto` for the checkpoint's, and the device."""

    dtype: str
    device: torch.device


def load_model(path: Any, sizes: Sizes, wanted: Wanted) -> tuple[nn.Module, Reading]:
    """Builds and loads this rank's part of a checkpoint. megatron.core.parallel_state has to be initialised.

    Returns:
        The model, and what was read for it, which `check_all_read` takes.

    Raises:
        ShimError: BAD_CHECKPOINT or PATH_NOT_FOUND for what cannot be loaded, INVALID_REQUEST for sizes that do not
            divide the network's, MISSING_DEPENDENCY where these need Transformer Engine.
    """
    checkpoint = find_checkpoint(path)
    network = network_of(checkpoint)
    sizes.check(network)
    with ExitStack() as stack:
        weights = open_weights(checkpoint.weights, stack)
        dtype = weights.dtype if wanted.dtype == "auto" else getattr(torch, wanted.dtype)
        model = build(network, sizes, weights, dtype, wanted.device)
        fill(model, weights)
    return model.eval().requires_grad_(requires_grad=False), reading_of(weights)


def build(network: Network, sizes: Sizes, weights: Weights, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Builds a GPTModel whose parameters are not set."""
    from megatron.core import parallel_state as ps
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    on_gpu = device.type == "cuda"
    with_engine = on_gpu and importlib.util.find_spec("transformer_engine") is not None
    sizes.check_engine(with_engine)
    options: dict[str, Any] = {
        **network.config,
        **sizes.config(),
        **({} if on_gpu else ON_CPU),
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "perform_initialization": False,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
    }
    if "num_moe_experts" in network.config:
        options |= {
            "moe_router_load_balancing_type": "none",
            "moe_token_dispatcher_type": "alltoall" if on_gpu else "allgather",
            "moe_grouped_gemm": with_engine,
        }
    config = TransformerConfig(**options)
    stored = weights.shape(weights.prefix + EMBEDDING, ())[0]
    sizes.check_vocabulary(stored)
    # Told to clients: what is stored, and built, is padded.
    config.vocab_size = network.vocab_size or stored
    tied = {"share_embeddings_and_output_weights": not weights.has(OUTPUT_LAYER)}
    model: nn.Module = GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_decoder_block_spec(config, with_engine, normalization=config.normalization),
        vocab_size=stored,
        max_sequence_length=network.positions,
        pre_process=ps.is_pipeline_first_stage(),
        post_process=ps.is_pipeline_last_stage(),
        **{**tied, **network.model},
    )
    return model.to(device)


@torch.no_grad()
def fill(model: Any, weights: Weights) -> None:
    """Reads this rank's part of every parameter; raises BAD_CHECKPOINT for what is missing or of another shape."""
    from megatron.core.dist_checkpointing.mapping import ShardedTensor
    from megatron.core.dist_checkpointing.state_dict_utils import load_preprocess

    floating = [(name, one) for name, one in model.named_parameters() if one.is_floating_point()]
    for _, parameter in floating:
        parameter.fill_(math.nan)
    metadata = {"non_homogeneous_layers": True} if weights.numbered else None
    # Its tensors share the memory of the parameters that they are parts of.
    shards, _, _ = load_preprocess(model.sharded_state_dict(prefix=weights.prefix, metadata=metadata))
    for shard in _leaves(shards):
        if isinstance(shard, ShardedTensor):
            _fill_shard(shard, weights)
    for name, parameter in floating:
        if parameter.isnan().any():
            raise ShimError(
                Reason.BAD_CHECKPOINT, f"{name} is no number somewhere once it is loaded", "take another iteration"
            )


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        yield tree
        return
    for branch in tree:
        yield from _leaves(branch)


def _fill_shard(shard: Any, weights: Weights) -> None:
    index, starts = shard.global_offset[: shard.prepend_axis_num], shard.global_offset[shard.prepend_axis_num :]
    expected = tuple(shard.global_shape[shard.prepend_axis_num :])
    found = weights.shape(shard.key, index)
    if found != expected:
        raise ShimError(
            Reason.BAD_CHECKPOINT,
            f"{shard.key} is {list(found)} where the stated sizes make it {list(expected)}",
            "the config beside the weights is of another network",
        )
    shard.data.copy_(weights.read(shard.key, index, starts, tuple(shard.local_shape)))
