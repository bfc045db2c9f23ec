"""The compiled kernel that gathers kept bytes: builds it from `gather.c`, and finds it. The shim does without it, too.

    python -m prunebridge_shim.slicing.kernel

puts it beside its source, by the compiler that `CC` names or `cc`. It needs nothing of Python: one file serves all
interpreters of a platform.
"""

import ctypes
import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).with_name("gather.c")

NARROW, WIDE = 16, 64
"""Bytes that the kernel copies at a time, as it is asked to."""

Kernel = Callable[..., None]


def library() -> Path:
    """Where the kernel lies, there or not. It is never one of another source: that would be called wrongly."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return SOURCE.with_name(f"gather-{sysconfig.get_platform()}-{digest}.so")


@cache
def load() -> Kernel | None:
    """The function `prunebridge_gather` of `gather.c`, which leaves the interpreter to other threads meanwhile.

    None where it was not built, or this platform does not load it.
    """
    try:
        gather = ctypes.CDLL(str(library())).prunebridge_gather
    except OSError:
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    gather.argtypes = [pointer, size, pointer, size, pointer, size, size, pointer, size]
    gather.restype = None
    return gather


def build() -> None:
    """Compiles the kernel where it is missing, and removes those of earlier sources.

    Raises:
        OSError: there is no such compiler, or the folder cannot be written to.
        subprocess.CalledProcessError: it does not compile; `stderr` says why.
    """
    target = library()
    if target.exists():
        return
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with TemporaryDirectory(dir=SOURCE.parent, prefix="gather-") as folder:
        made = Path(folder) / target.name
        command = [*compiler, "-O3", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 the user's own compiler
        for old in SOURCE.parent.glob(f"gather-{sysconfig.get_platform()}-*.so"):
            old.unlink()
        made.replace(target)


def main() -> int:
    """Builds, or says in a line why not."""
    try:
        build()
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        sys.stderr.write(f"checkpoints will be cut by numpy, which takes longer: no compiled kernel ({why})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
