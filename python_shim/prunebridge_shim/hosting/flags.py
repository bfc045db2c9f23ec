"""The flags of a job of its own. Standard library only."""

import argparse
from pathlib import Path

PARALLEL = ("tensor-model", "pipeline-model", "context", "expert-model", "expert-tensor")


def add_hosting_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what a job is made of, and how clients reach it."""
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR", help="of Megatron-LM, Megatron-Bridge or NeMo 2"
    )
    for name in PARALLEL:
        default = "as tensor-model-parallel" if name == "expert-tensor" else "1"
        parser.add_argument(f"--{name}-parallel-size", type=_size, metavar="N", help=f"default: {default}")
    parser.add_argument("--sequence-parallel", action="store_true", help="share sequences out between projections")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="default: the checkpoint's"
    )
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cuda", "cpu"), help="default: a GPU if there is one"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--listen", metavar="ADDRESS", help="HOST:PORT, [IPV6]:PORT or unix:PATH of rank 0; port 0: any that is free"
    )
    where.add_argument("--dial", metavar="ADDRESS", help="HOST:PORT of an orchestrator that listens")
    parser.add_argument(
        "--dial-ca", type=Path, metavar="FILE", help="the authorities that its certificate is by; default: the system's"
    )
    parser.add_argument(
        "--deadline", type=float, default=60.0, metavar="SECONDS", help="by which a lost rank is known; default: 60"
    )
    parser.add_argument(
        "--wait", type=float, default=600.0, metavar="SECONDS", help="that ranks wait for one another; default: 600"
    )


def sizes_of(args: argparse.Namespace) -> dict[str, int]:
    """The parallel sizes by the names of `Sizes`."""
    tensor: int = args.tensor_model_parallel_size or 1
    return {
        "tensor": tensor,
        "pipeline": args.pipeline_model_parallel_size or 1,
        "context": args.context_parallel_size or 1,
        "expert": args.expert_model_parallel_size or 1,
        "expert_tensor": args.expert_tensor_parallel_size or tensor,
    }


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of ranks")
    return int(text)
