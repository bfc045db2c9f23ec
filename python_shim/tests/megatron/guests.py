"""Jobs that have a guest, and what their ranks do while a client outside asks something of it."""

import json
import os
import signal
import threading
import time

import torch.distributed as dist
import training
from torch.distributed.distributed_c10d import _world

import prunebridge_shim
from prunebridge_shim.errors import ShimError

DEADLINE_S = 12.0


def attach(model, folder, case):
    """Attaches as a script would; rank 0 writes down where clients find it."""
    options = {"address": "127.0.0.1:0", "deadline_s": DEADLINE_S, **case.get("attach", {})}
    guest = prunebridge_shim.attach(model, token_file=folder / "token", roots=[folder], **options)
    pids = [None] * dist.get_world_size()
    dist.all_gather_object(pids, os.getpid())
    if dist.get_rank() == 0:
        told = {"address": guest.address, "pids": pids}
        write(folder / f"{case['id']}.ready", json.dumps(told))
    return guest


def write(path, text):
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").rename(path)


def await_file(path):
    while not path.exists():
        time.sleep(0.02)


def host(model, folder, case):
    """Serves until a file says that it is enough; or a rank goes astray, and what each other knows is written down."""
    groups = len(_world.pg_map)
    try:
        with attach(model, folder, case) as guest:
            globals()[case["how"]](guest, folder, case)
    except ShimError as error:
        known = {"reason": error.reason.name, "message": error.message, "hint": error.hint}
        write(folder / f"{case['id']}.{dist.get_rank()}.json", json.dumps(known))
        if case["how"] != "be_refused":
            # Threads may be left in collectives.
            os._exit(0)
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("prunebridge")]
    left = [*threads, *list(_world.pg_map)[groups:]]
    write(folder / f"{case['id']}.{dist.get_rank()}.left", json.dumps([str(one) for one in left]))


def serve(guest, folder, case):
    if dist.get_rank() == 0:
        threading.Thread(target=lambda: (await_file(folder / f"{case['id']}.stop"), guest.stop()), daemon=True).start()
    guest.serve()


def step_until_lost(guest, folder, case):
    while True:
        guest.step()
        time.sleep(0.05)


def train_on(guest, folder, case):
    """Never comes to the end of a step."""
    await_file(folder / f"{case['id']}.stop")
    os._exit(0)


def be_refused(guest, folder, case):
    raise AssertionError("it was let in")


def train(chunks, folder, case):
    """Trains with a guest, which is asked for something at two of the steps and for nothing at the others."""
    guest, left = None, []

    def between(step, model):
        nonlocal guest
        guest = guest or attach(model, folder, case)
        if dist.get_rank() == 0 and step in (1, 3):
            await_file(folder / f"{case['id']}.asked.{step}")
        guest.step()
        left.append((threading.active_count(), len(_world.pg_map)))

    outcome = training.train_between(chunks, case, between)
    began = time.perf_counter()
    for _ in range(200):
        guest.step()
    idle_s = (time.perf_counter() - began) / 200
    guest.detach()
    handlers = [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)]
    return {**outcome, "left": left, "idle_s": idle_s, "default_handlers": handlers}
