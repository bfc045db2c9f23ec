"""Python functions that are called by name, where the shim's operator allowed it."""

import difflib
import importlib
import logging
import re
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory, text_of
from prunebridge_shim.python_folders import FOLDER, PythonFolder

PATH = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
NAME = re.compile(f"({PATH}):({PATH})")
ALLOWED = re.compile(f"{PATH}(?::{PATH})?")
CAUSE_CHARACTERS = 1000

log = logging.getLogger(__name__)


def allowed_name(text: str) -> str:
    """Checks an entry of an allowlist: `package.module`, `package.module:function`, or a folder that is there.

    A folder's path begins with `/`, `./` or `../`.

    Raises:
        ValueError: It is none of them.
    """
    if FOLDER.fullmatch(text):
        if not Path(text).is_dir():
            raise ValueError(f"{text!r} is no folder")
    elif not ALLOWED.fullmatch(text):
        raise ValueError(f"{text!r} is neither package.module nor package.module:function nor a folder")
    return text


class EntryPoints:
    """The Python functions that may be called: those named, and all that the modules named define themselves.

    Of a folder that is named, all modules are, and may have functions from one another.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(name for name in allowed if not FOLDER.fullmatch(name))
        self._folders = [PythonFolder(name) for name in allowed if FOLDER.fullmatch(name)]

    def find(self, name: str) -> Callable[..., Any]:
        """Imports a function, `package.module:function`, once it is known to be allowed.

        Raises:
            ShimError: INVALID_REQUEST for a name of another form, PYTHON_DENIED, or PYTHON_FAILED where there is no
                such function.
        """
        match = NAME.fullmatch(name)
        if match is None:
            raise ShimError(Reason.INVALID_REQUEST, f"{name!r} names no function", "write package.module:function")
        module, path = match.groups()
        is_named = name in self._allowed
        if not is_named and module not in self._allowed:
            self._check_folders(name, module)
        with blaming(name):
            found: Any = importlib.import_module(module)
        for attribute in path.split("."):
            # Before it is looked into: some modules import more when they are.
            if isinstance(found, ModuleType) and not is_named:
                self._check_own(name, module, found.__name__)
            if not hasattr(found, attribute):
                nearest = difflib.get_close_matches(attribute, dir(found), n=3)
                raise ShimError(
                    Reason.PYTHON_FAILED,
                    f"there is no {name}: {module} has no {path}",
                    f"nearest are {', '.join(nearest)}" if nearest else "",
                )
            found = getattr(found, attribute)
        if not callable(found):
            raise ShimError(Reason.PYTHON_FAILED, f"{name} is no function but of type {type(found).__name__}")
        if not is_named:
            self._check_own(name, module, getattr(found, "__module__", None))
        function: Callable[..., Any] = found
        return function

    def _check_folders(self, name: str, module: str) -> None:
        holding = [folder for folder in self._folders if folder.holds(module)]
        if not holding:
            raise _denied(name, module)
        if not any(folder.finds(module) for folder in holding):
            raise ShimError(
                Reason.PYTHON_DENIED,
                f"the Python function {name} is not allowed: importing {module} brings another than the folder's",
                "give it a name that no other module has",
            )

    def _check_own(self, name: str, module: str, home: str | None) -> None:
        # What a module imported is not what was allowed.
        if home != module and not (home and any(folder.holds(home) and folder.finds(home) for folder in self._folders)):
            raise ShimError(
                Reason.PYTHON_DENIED,
                f"the Python function {name} is not allowed: it is not {module}'s own"
                + (f", which has it from {home}" if home else ""),
                f"start the shim with --allow-python {name}, which allows it wherever it is from",
            )


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Turns what a named function raises into PYTHON_FAILED; its whole traceback goes to the log."""
    try:
        yield
    except ShimError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        log.warning("%s failed", name, exc_info=error)
        cause = f"{type(error).__name__}: {text_of(error)}"[:CAUSE_CHARACTERS]
        raise ShimError(
            Reason.PYTHON_FAILED, f"{name} failed: {cause}{_place(error, name)}", "the traceback is in the shim's log"
        ) from error


def draw(name: str, iterable: Any) -> Iterator[Any]:
    """Iterates over what a named function gave, which is to blame for what that raises."""
    with blaming(name):
        iterator = iter(iterable)
    while True:
        with blaming(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _place(error: BaseException, name: str) -> str:
    """The last line of the function's own package that was running."""
    package = name.split(":", maxsplit=1)[0].split(".", maxsplit=1)[0]
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").split(".")[0] == package
    ]
    if not frames:
        return ""
    frame, line = frames[-1]
    return f" ({frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name})"


def _denied(name: str, module: str) -> ShimError:
    return ShimError(
        Reason.PYTHON_DENIED,
        f"the Python function {name} is not allowed",
        f"start the shim with --allow-python {module}, with the function's own name, or with the module's folder",
    )
