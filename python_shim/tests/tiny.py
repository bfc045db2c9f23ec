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


def build(name):
    torch.manual_seed(3)
    if name == "llama":
        return tf.LlamaForCausalLM(tf.LlamaConfig(**COMMON, head_dim=8))
    if name == "llama-tied":
        return tf.LlamaForCausalLM(tf.LlamaConfig(**COMMON, head_dim=8, tie_word_embeddings=True))
    if name == "qwen2":
        return tf.Qwen2ForCausalLM(tf.Qwen2Config(**COMMON))
    return tf.NemotronForCausalLM(tf.NemotronConfig(**COMMON, head_dim=8))


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
