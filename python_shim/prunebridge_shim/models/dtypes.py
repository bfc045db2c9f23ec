"""Element types of torch, as safetensors spells them."""

import torch

from prunebridge_shim.errors import Reason, ShimError

SPELLINGS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}


def spelling_of(dtype: torch.dtype) -> str:
    """How safetensors spells it; raises INVALID_REQUEST for one that it does not know."""
    if dtype not in SPELLINGS:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"a tensor of the network is {dtype}, which safetensors does not hold",
            "open the network in another dtype",
        )
    return SPELLINGS[dtype]
