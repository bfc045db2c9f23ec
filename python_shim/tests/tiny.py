"""Tiny random models of several families."""

import numpy as np
import torch
import transformers as tf

from prunebridge_shim.models.forward import forward
from prunebridge_shim.tensors import Ask, HostTensor

VOCAB = 50
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES = {
    "llama": ("Llama", {"head_dim": 8}),
    "llama-tied": ("Llama", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gptj": ("GPTJ", {"n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4, "rotary_dim": 4}),
    "bert": ("Bert", {"head": "ForMaskedLM"}),
    "bert-headless": ("Bert", {"head": "Model"}),
    "bert-classes": ("Bert", {"head": "ForSequenceClassification", "num_labels": 3}),
    "nemotron": ("Nemotron", {"head_dim": 8}),
    "gemma3": ("Gemma3", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "pad_token_id": 0}),
    "mixtral": ("Mixtral", {"head_dim": 8, "num_local_experts": 6, "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2Moe", {**EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 24}),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "num_experts": 6, "head_dim": 8}),
    "gpt_oss": ("GptOss", {"head_dim": 8, "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 4}),
    "nemotron_h": (
        "NemotronH",
        {
            **EXPERTS,
            "head_dim": 8,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "n_routed_experts": 6,
            "moe_shared_expert_intermediate_size": 24,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "n_groups": 2,
            "ssm_state_size": 8,
            "chunk_size": 8,
        },
    ),
}
"""What transformers calls a family, and its fields beside the common ones; `head` is none, but says which class."""


def build(name):
    """A model whose every parameter and stored buffer is random, in eval mode where it is asked for."""
    torch.manual_seed(3)
    family, fields = FAMILIES[name]
    fields = {**COMMON, **fields}
    kind = getattr(tf, family + fields.pop("head", "ForCausalLM"))
    model = kind(kind.config_class(**fields))
    for tensor in model.state_dict().values():
        tensor.add_(torch.randn_like(tensor), alpha=COMMON["initializer_range"])
    return model


def save_model(name, folder):
    build(name).to(torch.bfloat16 if name == "qwen2" else torch.float32).save_pretrained(folder)
    return folder


def token_ids(rng, batches=3, rows=2, length=9):
    return [rng.integers(0, VOCAB, (rows, length), dtype=np.int64) for _ in range(batches)]


def as_feed(ids):
    return [Ask({"input_ids": HostTensor("I64", one)}) for one in ids]


def asking(ids, returns, **extra):
    """Asks over token ids, and their answers by number, which fill as they are given."""
    answers = {}
    asks = [
        Ask({"input_ids": HostTensor("I64", one), **extra}, what, lambda answer, i=i: answers.update({i: answer}))
        for i, (one, what) in enumerate(zip(ids, returns, strict=True))
    ]
    return asks, answers


def logits_of(model, feed):
    """The logits of a feed's batches, by their numbers."""
    batches = [ask.batch["input_ids"].array for ask in feed]
    asks, answers = asking(batches, ["logits"] * len(batches))
    forward(model, asks, no_tick)
    return {number: answer["logits"] for number, answer in answers.items()}


def no_tick(_done, _total):
    pass
