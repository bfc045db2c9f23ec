"""Puts the compiled kernel that gathers kept bytes into a wheel, where it can be built."""

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is there only where wheels are built
    """Builds the kernel in place. A wheel with it is one for this platform and any Python; one without, for any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it makes a wheel; `version` tells an editable one, which uses what is in place."""
        kernel = runpy.run_path(str(Path(self.root, "prunebridge_shim", "slicing", "kernel.py")))
        if kernel["main"]() != 0 or version == "editable":
            return
        build_data["artifacts"].append(str(kernel["library"]().relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
