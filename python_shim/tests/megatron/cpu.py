"""Lets Megatron-Core, which names CUDA devices in many places, run on a CPU. Only for tests."""

import functools
import logging

import torch
from megatron.core.tensor_parallel import random as megatron_random
from megatron.core.transformer.moe import moe_utils

CPU = torch.device("cpu")
FACTORIES = ["arange", "empty", "full", "ones", "rand", "tensor", "zeros"]


def on_cpu():
    """Has what Megatron-Core makes on CUDA devices made on the CPU, for good: a process is one rank."""
    for name in FACTORIES:
        setattr(torch, name, _made_on_cpu(getattr(torch, name)))
    torch.cuda.current_device = lambda: CPU
    torch.Tensor.cuda = lambda tensor, *_args, **_kwargs: tensor
    torch.Tensor.type = _typed_as_on_cuda(torch.Tensor.type)
    # A name that it looks for and only has with Transformer Engine.
    moe_utils.te_general_gemm = None
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.manual_seed = torch.manual_seed
    logging.getLogger(megatron_random.__name__).setLevel(logging.ERROR)
    torch.cuda.get_rng_state = lambda *_: torch.get_rng_state()
    # Where the states of Megatron's own generators are kept, the CPU's generator takes the device's place.
    megatron_random._get_cuda_rng_state = lambda *_args, **_kwargs: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *_args, **_kwargs: torch.set_rng_state(state)


def _made_on_cpu(factory):
    @functools.wraps(factory)
    def make(*args, **kwargs):
        if torch.device(kwargs.get("device") or CPU).type == "cuda":
            kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    return make


def _typed_as_on_cuda(original):
    def typed(tensor, *args, **kwargs):
        found = original(tensor, *args, **kwargs)
        return found.replace("torch.", "torch.cuda.") if isinstance(found, str) else found

    return typed
