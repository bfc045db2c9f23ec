"""Runs one rank of a job that exists to be measured, from its start to the signal that ends it."""

import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import HashStore  # type: ignore[attr-defined]

from prunebridge_shim import __version__
from prunebridge_shim.cluster.exchange import LEADER, Exchange
from prunebridge_shim.cluster.group import NEXT_STEP
from prunebridge_shim.cluster.job import join
from prunebridge_shim.cluster.roll_call import once_all_have_come
from prunebridge_shim.errors import Reason, ShimError, text_of
from prunebridge_shim.guest import Guest, enter
from prunebridge_shim.hosting.model import Wanted, load_model
from prunebridge_shim.hosting.reading import Reading, check_all_read
from prunebridge_shim.hosting.sizes import Sizes
from prunebridge_shim.rpc.launching import end_with_launcher
from prunebridge_shim.rpc.options import PROTOCOL_VERSIONS
from prunebridge_shim.rpc.readiness import tell_failed, tell_ready
from prunebridge_shim.rpc.reception import Entrance
from prunebridge_shim.rpc.translate import to_shim_error

STDOUT, STDERR = 1, 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hosting:
    """A job of its own.

    Attributes:
        checkpoint: The folder of a Megatron checkpoint.
        sizes: Its parallel sizes.
        dtype: What it is loaded in, as torch spells it; `auto` keeps the checkpoint's.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        entrance: How clients reach it.
        deadline_s: Seconds by which a lost rank is known.
        wait_s: Seconds that ranks wait for one another to have loaded.
    """

    checkpoint: Path
    sizes: Sizes
    dtype: str
    device: str
    entrance: Entrance
    deadline_s: float
    wait_s: float


def run(options: Hosting) -> int:
    """Runs this rank until SIGTERM reaches rank 0, which says on stdout where it is; gives the exit status."""
    ready_fd = os.dup(STDOUT)
    # Whatever else is printed: the line is for a program to read.
    os.dup2(STDERR, STDOUT)
    leads = int(os.environ.get("RANK", LEADER)) == LEADER
    try:
        guest = _open(options)
    except Exception as error:  # noqa: BLE001 told to whoever reads stdout
        failure = to_shim_error(error)
        log.error("%s: %s", failure.reason.name, failure.message)  # noqa: TRY400 its traceback is in the log
        if leads:
            tell_failed(ready_fd, failure)
        return 1
    ends = (signal.SIGTERM, signal.SIGINT)
    for number in ends:
        # The launcher signals all ranks, and the others end with rank 0.
        signal.signal(number, (lambda *_: guest.stop()) if leads else signal.SIG_IGN)
    if leads:
        tell_ready(
            ready_fd,
            address=guest.address,
            boot_id=guest.boot_id,
            pid=os.getpid(),
            version=__version__,
            protocol=PROTOCOL_VERSIONS[-1],
        )
    try:
        guest.serve()
        guest.detach()
    except ShimError as error:
        log.error("%s: %s", error.reason.name, error.message)  # noqa: TRY400 it is what a lost rank looks like
        return 1
    return 0


def _open(options: Hosting) -> Guest:
    end_with_launcher()
    device = _device(options.device)
    _check_megatron(device)
    _start_job(options.sizes, device)
    exchange = Exchange()
    loaded, failure = None, None
    try:
        loaded = load_model(options.checkpoint, options.sizes, Wanted(options.dtype, device))
    except Exception as error:  # noqa: BLE001 all ranks hear of it
        failure = to_shim_error(error)
    model = once_all_have_come(lambda: _agreed(exchange, loaded, failure), options.wait_s, options.deadline_s)
    return enter(join(model, options.deadline_s, options.wait_s), options.entrance, options.wait_s)


def _agreed(exchange: Exchange, loaded: tuple[nn.Module, Reading] | None, failure: ShimError | None) -> nn.Module:
    """This rank's part of the model, once all ranks together hold all of it."""
    try:
        exchange.agree(failure)
        assert loaded is not None
        model, reading = loaded
        check_all_read(reading, exchange)
    except RuntimeError as error:
        message = f"the ranks are no longer together: {text_of(error)}"
        raise ShimError(Reason.RANK_LOST, message, NEXT_STEP) from error
    exchange.close()
    return model


def _check_megatron(device: torch.device) -> None:
    try:
        import yaml  # noqa: F401
        from megatron.core.transformer.utils import get_default_causal_mask
    except ImportError as error:
        raise ShimError(
            Reason.MISSING_DEPENDENCY,
            f"this interpreter cannot import {error.name}",
            "pip install 'prunebridge-shim[megatron]', or name another interpreter with PRUNEBRIDGE_PYTHON",
        ) from error

    if device.type == "cpu":
        try:
            get_default_causal_mask(1)
        except (AssertionError, RuntimeError) as error:
            raise ShimError(
                Reason.MISSING_DEPENDENCY,
                "this megatron-core makes tensors of its own on CUDA devices, and there is none",
                "start the job where GPUs are; on a CPU, score the model as a Hugging Face checkpoint",
            ) from error


def _device(name: str) -> torch.device:
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= count:
        message = f"rank {index} of this machine has no GPU: there are {count}"
        raise ShimError(Reason.INVALID_REQUEST, message, "start as many ranks as there are GPUs, or use --device cpu")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def _start_job(sizes: Sizes, device: torch.device) -> None:
    from megatron.core import parallel_state as ps
    from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

    alone: dict[str, Any] = {"store": HashStore(), "rank": 0, "world_size": 1}
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, **({} if "RANK" in os.environ else alone))
    sizes.check_ranks(dist.get_world_size())
    ps.initialize_model_parallel(
        tensor_model_parallel_size=sizes.tensor,
        pipeline_model_parallel_size=sizes.pipeline,
        context_parallel_size=sizes.context,
        expert_model_parallel_size=sizes.expert,
        expert_tensor_parallel_size=sizes.expert_tensor,
    )
    # The generators of training, which dropout needs, are of no use here.
    model_parallel_cuda_manual_seed(0, inference_rng_tracker=True)
