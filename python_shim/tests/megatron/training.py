"""A training loop of a job that is measured in the middle, or is not."""

import hashlib
import random
from queue import Queue

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state as ps
from megatron.core.dist_checkpointing import save
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from parents import calibration_of
from points import feed_of, no_tick, points_of
from saving import job_of

from prunebridge_shim.cluster.job import join

STEPS = 4
MICRO_BATCHES = 2


def train(chunks, case, child=None):
    """Trains a few steps; gives the losses on this rank, and a digest of all that the job goes on with.

    Args:
        chunks: The model.
        case: The job's case.
        child: The folder of a child that is saved in the middle, after the model was measured; none leaves it alone.
    """
    scores = None

    def between(step, model):
        nonlocal scores
        if child is not None and step == STEPS // 2:
            scores = measure_and_save(model, case, child)

    return {**train_between(chunks, case, between), "scores": scores}


def train_between(chunks, case, between):
    """Trains a few steps, before each of which something is called with its number and the model."""
    torch.manual_seed(5 + ps.get_data_parallel_rank())
    random.seed(5)
    np.random.seed(5)
    config = chunks[0].config
    wrapping = DistributedDataParallelConfig(use_distributed_optimizer=True, **case.get("wrapping", {}))
    model = [DistributedDataParallel(config, wrapping, chunk) for chunk in chunks]
    config.finalize_model_grads_func = finalize_model_grads
    config.no_sync_func = [chunk.no_sync for chunk in model] if len(model) > 1 else model[0].no_sync
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam", lr=1e-3, use_distributed_optimizer=True, clip_grad=1.0, **case.get("optimizer", {})
        ),
        model,
    )
    losses = []
    for step in range(STEPS):
        between(step, model)
        losses += train_step(model, optimizer, calibration_of(case["parent"])[step % 3])
    return {"losses": losses, "digest": digest_of(model)}


def measure_and_save(model, case, child):
    """Saves first: nobody has run the model since its parameters were last changed."""
    if case.get("checkpointed"):
        checkpoint(model, child.with_suffix(".checkpoint"))
    rank = join(model, deadline_s=30.0)
    if dist.get_rank() > 0:
        rank.follow()
        return None
    rank.save_model(job_of(child, case), no_tick)
    done = rank.collect(points_of(case["parent"]), feed_of(calibration_of(case["parent"])), no_tick)
    rank.evaluate_loss(feed_of(calibration_of(case["parent"])), no_tick)
    rank.leave()
    return {key: value.array.tolist() for key, value in done.sums.items()}


def checkpoint(model, folder):
    """Has Megatron-Core save the model."""
    if dist.get_rank() == 0:
        folder.mkdir()
    dist.barrier()
    # Its own would be in a process that imports everything anew.
    filesystem_async._results_queue = Queue()
    save({f"model{number}": chunk.module.sharded_state_dict() for number, chunk in enumerate(model)}, str(folder))


def train_step(model, optimizer, ids):
    for chunk in model:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    rows, length = ids.shape

    def forward(batches, chunk):
        ids = next(batches)
        positions = torch.arange(length).expand(rows, length)
        output = chunk(input_ids=ids, position_ids=positions, attention_mask=None, labels=ids.roll(-1, 1))
        return output, lambda losses: (losses.mean(), {"loss": losses.mean().item()})

    batches = [iter([ids] * MICRO_BATCHES) for _ in model]
    outputs = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=batches if len(model) > 1 else batches[0],
        model=model,
        num_microbatches=MICRO_BATCHES,
        seq_length=length,
        micro_batch_size=rows,
    )
    updated, norm, _ = optimizer.step()
    assert updated
    return [output["loss"] for output in outputs] + [float(norm)]


def digest_of(model):
    """A digest of weights, modes and random states."""
    digest = hashlib.sha256()
    for chunk in model:
        for name, tensor in sorted(chunk.state_dict().items()):
            if isinstance(tensor, torch.Tensor):
                digest.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        modes = [(name, module.training, sorted(module._modules)) for name, module in chunk.named_modules()]
        gradients = [(name, parameter.requires_grad) for name, parameter in chunk.named_parameters()]
        hooks = [name for name, module in chunk.named_modules() if module._forward_hooks]
        digest.update(repr([modes, gradients, hooks, random.random(), np.random.random()]).encode())
    digest.update(torch.get_rng_state().numpy().tobytes())
    for name, state in sorted(get_cuda_rng_tracker().get_states().items()):
        digest.update(name.encode() + state.numpy().tobytes())
    return digest.hexdigest()
