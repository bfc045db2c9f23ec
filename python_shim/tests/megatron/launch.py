"""Starts the ranks of jobs from a test, and sees that they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LONGEST_S = 100
SOAK = os.environ.get("PRUNEBRIDGE_SOAK") == "1"


def scaled(cases, names):
    """The cases that are always run, or all of them in a soak."""
    return cases if SOAK else {name: cases[name] for name in names}


def run_jobs(scenario, folder, jobs, under_torchrun=False):
    """Runs the cases of jobs: `{name: (ranks, cases)}`. Gives the exit codes of their ranks, and the log.

    Those that may run at once should: importing Megatron-Core anew takes seconds.
    """
    return end_jobs(start_jobs(scenario, folder, jobs, under_torchrun), folder)


def start_jobs(scenario, folder, jobs, under_torchrun=False):
    """Starts the same; gives their process."""
    listed = [{"name": name, "ranks": ranks, "cases": cases} for name, (ranks, cases) in jobs.items()]
    script = [str(HERE / "scenarios.py"), scenario, str(folder), json.dumps(listed)]
    if under_torchrun:
        script = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={listed[0]['ranks']}", *script]
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, *script],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end_jobs(process, folder):
    """Waits for the end of jobs; gives the exit codes of their ranks, and the log."""
    try:
        log, _ = process.communicate(timeout=LONGEST_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, log
    exits = folder / "exits.json"
    return (json.loads(exits.read_text()) if exits.exists() else {}), log


def wait_for(path, process):
    """Waits for a file of a job's; gives its text."""
    until = time.monotonic() + LONGEST_S
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"no {path.name}"
        time.sleep(0.05)
    return path.read_text()


def read(folder, name):
    """What a rank wrote down; fails with what there is where it did not."""
    path = folder / f"{name}.json"
    assert path.exists(), sorted(found.name for found in folder.iterdir())
    return json.loads(path.read_text())
