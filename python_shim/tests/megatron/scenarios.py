"""What ranks do in tests: `scenarios.py NAME FOLDER JOBS`, as one rank under torchrun, else as the parent of all ranks.

JOBS is JSON, a list of jobs that run at once. Each has a `name`, a number of `ranks`, and `cases`, which its ranks do
one after the other, by the scenario of that name or their own. What came of them is in files of the folder, named after
each case's `id`.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path

import guests
import numpy as np
import parents
import torch
import torch.distributed as dist
import training
from cpu import on_cpu
from megatron.core import parallel_state as ps
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from parents import build, calibration_of
from points import feed_of, no_tick, points_of, vain_requests
from safetensors.torch import load_file
from saving import LIMITS, in_small_blocks, job_of, left_by_a_killed_save, vain_saves

from prunebridge_shim.cluster.exchange import Exchange
from prunebridge_shim.cluster.facts import describe
from prunebridge_shim.cluster.job import join
from prunebridge_shim.errors import ShimError
from prunebridge_shim.hosting.model import Wanted, load_model
from prunebridge_shim.hosting.reading import check_all_read
from prunebridge_shim.hosting.sizes import Sizes

SIZES = {
    "tp": "tensor_model_parallel_size",
    "pp": "pipeline_model_parallel_size",
    "vpp": "virtual_pipeline_model_parallel_size",
    "cp": "context_parallel_size",
    "ep": "expert_model_parallel_size",
    "etp": "expert_tensor_parallel_size",
}


LONGEST_S = 80.0


def start(case):
    """Sets the job of a case up; gives its model."""
    ps.initialize_model_parallel(**{SIZES[key]: case[key] for key in SIZES if key in case})
    model_parallel_cuda_manual_seed(1)
    return build(case["parent"], case.get("spec", {}), case.get("tied", False), **case.get("config", {}))


def measure(folder, case):
    """Measures a golden parent, and its loss."""
    model = start(case)
    rank = join(model, deadline_s=30.0)
    if dist.get_rank() == 0:
        ids = calibration_of(case["parent"])
        done = rank.collect(points_of(case["parent"]), feed_of(ids), no_tick)
        loss = rank.evaluate_loss(feed_of(ids), no_tick)
        rank.leave()
        np.savez(folder / f"{case['id']}.npz", **{key: value.array for key, value in done.sums.items()})
        counts = {"batches": done.batches, "samples": done.samples, "tokens": done.tokens, "loss": loss}
        (folder / f"{case['id']}.json").write_text(json.dumps(counts))
    else:
        rank.follow()
    ps.destroy_model_parallel()


def save(folder, case):
    """Saves a child of a golden parent in both layouts; writes what is told of its shards."""
    in_small_blocks()
    rank = join(start(case), deadline_s=30.0)
    if dist.get_rank() > 0:
        rank.follow()
    else:
        told = {}
        for apart in (False, True):
            job = job_of(folder / f"{case['id']}.{apart}", case, apart, sha256=True)
            told[str(apart)] = [
                [one.file, one.size, one.crc32, one.sha256.hex()] for one in rank.save_model(job, no_tick).shards
            ]
        rank.leave()
        (folder / f"{case['id']}.json").write_text(json.dumps(told))
    ps.destroy_model_parallel()


def lose(folder, case):
    """Measures or saves, and loses a rank in the middle; writes what each other rank knows of it, and how soon."""
    in_small_blocks()
    rank = join(start(case), deadline_s=case["deadline_s"])
    me, victim = dist.get_rank(), case["victim"]
    pids = [None] * dist.get_world_size()
    dist.all_gather_object(pids, os.getpid())
    struck = folder / f"{case['id']}.struck"

    def strike():
        struck.touch()
        os.kill(pids[victim], getattr(signal, case["signal"]))

    def feed():
        for index, ask in enumerate(feed_of(calibration_of(case["parent"]))):
            if index == 2 and not struck.exists():
                # While micro-batches run, as likely as not.
                threading.Timer(0.01, strike).start()
                time.sleep(0.005)
            yield ask

    def strike_halfway(done, total):
        if done > total / 2 and not struck.exists():
            strike()

    try:
        if me == 0 and case.get("saves"):
            rank.save_model(job_of(folder / f"{case['id']}.child", case), strike_halfway)
        while me == 0:
            rank.collect(points_of(case["parent"]), feed(), no_tick)
        rank.follow()
    except ShimError as error:
        known = {"reason": error.reason.name, "message": error.message, "after_s": time.time() - struck.stat().st_mtime}
        (folder / f"{case['id']}.{me}.json").write_text(json.dumps(known))
        os._exit(0)


def stray(folder, case):
    """Measures while one rank does something else than all others."""
    model = start(case)
    try:
        if case["how"] == "stay_away" and dist.get_rank() == 1:
            time.sleep(case["deadline_s"])
            os._exit(0)
        rank = join(model, case["deadline_s"], wait_s=case["deadline_s"] / 2)
        if dist.get_rank() == 1:
            globals()[case["how"]](rank, case["deadline_s"])
        if case["how"].endswith("before_agreeing"):
            rank.agree(None)
        if dist.get_rank() == 0:
            rank.collect(points_of(case["parent"]), feed_of(calibration_of(case["parent"])), no_tick)
        rank.follow()
    except ShimError as error:
        known = {"reason": error.reason.name, "message": error.message}
        (folder / f"{case['id']}.{dist.get_rank()}.json").write_text(json.dumps(known))
        os._exit(0)


def stop_before_agreeing(_rank, _deadline_s):
    os.kill(os.getpid(), signal.SIGSTOP)


def die_before_agreeing(_rank, _deadline_s):
    os.kill(os.getpid(), signal.SIGKILL)


def leave_for_the_job(_rank, deadline_s):
    time.sleep(1.5 * deadline_s)


def recall_another_command(rank, _deadline_s):
    rank._follower._digest = "another"


def run_out_of_memory(rank, _deadline_s):
    def forward(*_args, **_kwargs):
        raise torch.OutOfMemoryError("no room")

    rank._rank.model.chunks[0].decoder.layers[1].mlp.forward = forward


def ask_in_vain(folder, case):
    """Asks for what cannot be done, and then for what can; writes the errors, and what was measured."""
    model = start(case)
    model[-1].decoder.idle = torch.nn.Identity()
    look_at_signs(model[-1].decoder)
    rank = join(model, deadline_s=30.0)
    if dist.get_rank() == 0:
        ids = calibration_of(case["parent"])
        errors = {
            name: failure_of(partial(rank.collect, *request))
            for name, request in vain_requests(case["parent"], ids).items()
        }
        done = rank.collect(points_of(case["parent"]), feed_of(ids), no_tick)
        np.savez(folder / f"{case['id']}.npz", **{key: value.array for key, value in done.sums.items()})
        (folder / f"{case['id']}.json").write_text(json.dumps(errors))
        rank.leave()
    else:
        rank.follow()
    left = [name for chunk in model for name, module in chunk.named_modules() if module._forward_hooks]
    left += [name for chunk in model for name, module in chunk.named_modules() if module._forward_pre_hooks]
    (folder / f"{case['id']}.{dist.get_rank()}.hooks").write_text(json.dumps(left))
    ps.destroy_model_parallel()


class Signs(torch.nn.Module):
    """Gives what no mean can be taken of."""

    def forward(self, x):
        return x > 0


def look_at_signs(decoder):
    decoder.signs = Signs()
    mlp = decoder.layers[-1].mlp
    forward = mlp.forward
    mlp.forward = lambda x, *args, **kwargs: (decoder.signs(x), forward(x, *args, **kwargs))[1]


def save_in_vain(folder, case):
    """Saves what cannot be saved, and then what can; writes the errors, and what was left after each."""
    in_small_blocks()
    model = start(case)
    rank = join(model, deadline_s=30.0)
    own = folder / f"{case['id']}.{dist.get_rank()}"
    own.mkdir()
    os.chdir(own)
    if dist.get_rank() > 0:
        with LIMITS[case["limited"]]():
            rank.follow()
    else:
        errors = {}
        for name, save in vain_saves(own, case).items():
            errors[name] = failure_of(partial(rank.save_model, *save))
            errors[name]["left"] = [path.name for path in own.iterdir()]
        (folder / f"{case['id']}.json").write_text(json.dumps(errors))
        if not case["limited"]:
            left_by_a_killed_save(own / "good")
            rank.save_model(job_of(own / "good", case), no_tick)
        rank.leave()
    ps.destroy_model_parallel()


def failure_of(request):
    try:
        request()
    except ShimError as error:
        return {"reason": error.reason.name, "message": error.message, "hint": error.hint}


def outgrow_positions(folder, case):
    """Asks a model that learned its positions for sequences of more and of as many; writes what came of each."""
    ps.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    rank = join(parents.build_with_learned_positions(case["parent"], case["positions"]), deadline_s=30.0)
    ids = calibration_of(case["parent"])
    told = failure_of(partial(rank.evaluate_loss, feed_of(ids[..., : case["positions"] + 1]), no_tick))
    told["tokens"] = rank.evaluate_loss(feed_of(ids[..., : case["positions"]]), no_tick)[1]
    rank.leave()
    (folder / f"{case['id']}.json").write_text(json.dumps(told))
    ps.destroy_model_parallel()


def train(folder, case):
    """Trains twice from the same state, once measured and saved in the middle; writes what each came to.

    A job whose checkpoint is all that is wanted trains once.
    """
    for measured in (True,) if case.get("checkpointed") else (False, True):
        outcome = training.train(start(case), case, folder / case["id"] if measured else None)
        (folder / f"{case['id']}.{dist.get_rank()}.{measured}.json").write_text(json.dumps(outcome))
        ps.destroy_model_parallel()


def host(folder, case):
    """Has a guest, of which a client outside asks something."""
    guests.host(start(case), folder, case)
    ps.destroy_model_parallel()


def train_with_a_guest(folder, case):
    """Trains twice from the same state, once with a guest; writes what each came to."""
    alone = training.train(start(case), case)
    ps.destroy_model_parallel()
    hosted = guests.train(start(case), folder, case)
    for name, outcome in (("alone", alone), ("hosted", hosted)):
        (folder / f"{case['id']}.{dist.get_rank()}.{name}.json").write_text(json.dumps(outcome))
    ps.destroy_model_parallel()


def hold(folder, case):
    """Loads a checkpoint as the command does; writes which parameters are not the golden parent's, and what it is."""
    sizes = Sizes(**case.get("sizes", {}))
    ps.initialize_model_parallel(**{SIZES[key]: case[key] for key in SIZES if key in case})
    model_parallel_cuda_manual_seed(1)
    told = {}
    try:
        model, reading = load_model(Path(case["path"]), sizes, Wanted("auto", torch.device("cpu")))
        check_all_read(reading, Exchange())
        weights = load_file(parents.GOLDEN / case["parent"] / "parent.mcore.safetensors")
        expected = {
            name: parents.part_of(weights[parents.global_name(model, name)], name, model.config, parameter)
            for name, parameter in model.named_parameters()
        }
        differing = [name for name, one in model.named_parameters() if not torch.equal(one, expected[name])]
        told = {"differing": differing, "loaded": len(expected), "config": describe(model)}
    except ShimError as error:
        told = {"reason": error.reason.name, "message": error.message}
    (folder / f"{case['id']}.{dist.get_rank()}.json").write_text(json.dumps(told))
    ps.destroy_model_parallel()


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        *(measure, save, save_in_vain, lose, stray, ask_in_vain, outgrow_positions),
        *(train, host, train_with_a_guest, hold),
    )
}


def main():
    on_cpu()
    scenario, folder, jobs = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    if "RANK" in os.environ:
        (job,) = jobs
        be_rank(scenario, folder, job)
    # Forking is quick where importing is not.
    started = {job["name"]: fork_ranks(scenario, folder, job) for job in jobs}
    exits = wait_for(started, time.monotonic() + LONGEST_S)
    (folder / "exits.json").write_text(json.dumps(exits))


def be_rank(scenario, folder, job):
    dist.init_process_group("gloo")
    for case in job["cases"]:
        SCENARIOS[case.get("scenario", scenario)](folder, case)
    # Taking the groups of all those layouts down would take longer than all else.
    os._exit(0)


def fork_ranks(scenario, folder, job):
    """Starts the ranks of a job as children; gives their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(job["ranks"])}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            be_rank(scenario, folder, job)
        pids.append(pid)
    return pids


def wait_for(started, until):
    """The exit code of each rank of each job; none for those that had to be killed in the end."""
    exits = {name: [None] * len(pids) for name, pids in started.items()}
    left = {pid: (name, rank) for name, pids in started.items() for rank, pid in enumerate(pids)}
    while time.monotonic() < until and any(not is_stopped(pid) for pid in left):
        for pid in list(left):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                name, rank = left.pop(pid)
                exits[name][rank] = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return exits


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


if __name__ == "__main__":
    main()
