"""Folders of Python modules that the shim's operator allowed as a whole."""

import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path

FOLDER = re.compile(r"\.{0,2}/.*|\.{1,2}", re.DOTALL)
"""A path that cannot be taken for a module's name: from the root, or from `.` or `..`."""


class PythonFolder:
    """A folder whose modules may be imported. One with an `__init__.py` is a package, and the only one allowed of it.

    Args:
        path: The folder.
    """

    def __init__(self, path: str) -> None:
        folder = Path(path).resolve()
        is_package = (folder / "__init__.py").is_file()
        self._root = folder.parent if is_package else folder
        self._package = folder.name if is_package else None

    def holds(self, module: str) -> bool:
        """Whether a module, or the package that it is in, lies in the folder; what is imported may lie elsewhere."""
        top = module.partition(".")[0]
        if self._package is not None:
            return top == self._package
        return (self._root / f"{top}.py").is_file() or (self._root / top).is_dir()

    def finds(self, module: str) -> bool:
        """Whether importing a module brings the folder's; has Python look there, after everywhere else."""
        if str(self._root) not in sys.path:
            sys.path.append(str(self._root))
        try:
            spec = importlib.util.find_spec(module.partition(".")[0])
        except ValueError:  # one that was imported in another way, as __main__ is
            return False
        return spec is not None and all(Path(one).resolve().is_relative_to(self._root) for one in _folders_of(spec))


def _folders_of(spec: importlib.machinery.ModuleSpec) -> list[str]:
    if spec.submodule_search_locations is not None:
        return list(spec.submodule_search_locations)
    return [str(Path(spec.origin or "/").parent)]
