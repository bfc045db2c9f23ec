"""What this interpreter can do, found out without importing what it takes."""

import ctypes
import importlib.util
import os
import platform
import runpy
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing import kernel

NEEDS: Mapping[str, tuple[str, ...]] = {
    "slice": (),
    "tokenize": ("transformers",),
    "cut_model": ("torch",),
    "open_subnet": ("torch",),
    "open_model": ("torch", "transformers"),
    "close_model": ("torch", "transformers"),
    "collect": ("torch", "transformers"),
    "evaluate_loss": ("torch", "transformers"),
    "forward": ("torch", "transformers"),
    "score_model": ("torch", "transformers"),
    "collect_gradients": ("torch", "transformers"),
    "open_network": ("torch", "transformers"),
    "calibrate_norms": ("torch", "transformers"),
    "save_network": ("torch", "transformers"),
    "check_config": ("torch", "transformers"),
    "trace_network": ("torch", "transformers", "torch_pruning"),
}
"""The packages that each kind of work needs."""

EXTRAS: Mapping[str, str] = {"torch_pruning": "networks"}
"""What pip calls the extra that brings a package, where that is not `standalone`."""


def capabilities() -> list[str]:
    """The kinds of work that can be started."""
    return [kind for kind, packages in NEEDS.items() if all(map(_installed, packages))]


def require(kind: str) -> None:
    """Raises MISSING_DEPENDENCY where a kind of work lacks a package, INVALID_REQUEST for a guest's."""
    if kind not in NEEDS:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{kind} is about the model of a job, and this shim is no guest of one",
            "attach to a job that called prunebridge_shim.attach",
        )
    missing = [package for package in NEEDS[kind] if not _installed(package)]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS.get(package, "standalone") for package in missing))
        raise ShimError(
            Reason.MISSING_DEPENDENCY,
            f"{kind} needs {' and '.join(missing)}, which this interpreter lacks: {sys.executable}",
            f"pip install 'prunebridge-shim[{extras}]', or name another interpreter with PRUNEBRIDGE_PYTHON",
        )


def libraries() -> dict[str, str]:
    """Versions of what the shim runs on, and what it gathers kept bytes by."""
    versions = {"python": platform.python_version(), "gather": "compiled" if kernel.load() else "numpy"}
    for package in ("torch", "transformers"):
        if _installed(package):
            versions[package] = metadata.version(package)
    return versions


@cache
def devices() -> list[tuple[str, str, int]]:
    """The devices that a model can be opened on, best first: torch's spelling, a description, and bytes of memory."""
    host = ("cpu", platform.processor() or platform.machine(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return [*(_cuda_devices() if _may_have_cuda() else []), host]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _may_have_cuda() -> bool:
    """Whether torch could find a GPU: asking it takes seconds, which a CPU build or a missing driver saves."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = _run_module(Path(spec.origin).with_name("version.py"))
    if version.get("hip"):
        return True
    return version.get("cuda") is not None and _has_driver()


def _run_module(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path)) if path.is_file() else {"cuda": "unknown"}


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda_devices() -> list[tuple[str, str, int]]:
    import torch

    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [(f"cuda:{index}", found.name, found.total_memory) for index, found in enumerate(properties)]
