"""What the gradnas bench compares with: forward and backward passes without masks, and a BERT to run them on."""

import os
import sys
import time

import torch
import transformers
from safetensors.torch import load_file


def trained(model):
    """Seconds of passes in which all weights have gradients, as in training."""
    model.requires_grad_(True)
    seconds = sum(_pass(model, ids, input_ids=ids) for ids in _batches())
    model.zero_grad(set_to_none=True)
    return seconds


def frozen(model):
    """Seconds of passes in which activations alone have gradients, from the embeddings on."""
    model.requires_grad_(False)
    embed = model.get_input_embeddings()
    return sum(_pass(model, ids, inputs_embeds=embed(ids).requires_grad_(True)) for ids in _batches())


def _pass(model, labels, **inputs):
    began = time.perf_counter()
    with torch.enable_grad():
        model(**inputs, labels=labels, use_cache=False).loss.backward()
    return time.perf_counter() - began


def _batches():
    return load_file(os.environ["GRADNAS_BATCHES"])["input_ids"].unbind()


if __name__ == "__main__":
    torch.manual_seed(0)
    # The sizes of bert-base-uncased.
    transformers.BertForMaskedLM(transformers.BertConfig()).save_pretrained(sys.argv[1])
