"""Who may import whom, and what: the arrows of the design."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prunebridge_shim"
BASE = {"errors", "tensors", ""}
ALLOWED = {
    "errors": set(),
    "tensors": set(),
    "python_folders": set(),
    "entry_points": {"python_folders"},
    "slicing": {"slicing"},
    "models": {"models"},
    "collect": {"collect", "models"},
    "subnet": {"subnet", "slicing"},
    "cluster": {"cluster", "collect", "models", "slicing", "subnet"},
    "networks": {"networks", "models", "subnet", "slicing", "entry_points"},
    "rpc": {"rpc", "gen", "cluster", "models", "collect", "subnet", "slicing", "networks", "entry_points"},
    "guest": {"rpc", "cluster"},
    "hosting": {"hosting", "guest", "rpc", "cluster", "slicing"},
    "callbacks": {"guest"},
    "__main__": {"rpc", "entry_points", "hosting"},
    "": {"guest"},
}
FOREIGN = {
    "slicing": {"numpy", "zlib_ng"},
    "models": {"numpy", "torch", "transformers"},
    "collect": {"numpy", "torch"},
    "subnet": {"torch"},
    "cluster": {"numpy", "torch", "megatron", "zlib_ng"},
    "networks": {"numpy", "torch", "torch_pruning", "transformers", "safetensors", "zlib_ng"},
    "errors": set(),
    "entry_points": set(),
    "python_folders": set(),
    "tensors": {"numpy"},
    "rpc": {"grpc", "google", "torch"},
    "guest": {"torch"},
    "callbacks": {"lightning", "megatron"},
    "hosting": {"numpy", "torch", "megatron", "yaml", "safetensors"},
    "__main__": {"safetensors"},
    "": set(),
}
FILES = [path for path in PACKAGE.rglob("*.py") if "gen" not in path.parts]


def part_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        yield from imported_by(node)


def imported_by(node):
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{ast.unparse(node)} is relative"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_what_it_may(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py").replace("__init__", "")
    for module in imported(path):
        root = module.split(".")[0]
        if root == "prunebridge_shim":
            name = part_of(module)
            assert name in ALLOWED[part] | BASE or name == "__version__", f"{part} must not import {module}"
        else:
            assert root in sys.stdlib_module_names or root in FOREIGN[part], f"{part} must not import {module}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "cluster"], ids=lambda path: path.name)
def test_megatron_is_imported_where_it_is_needed(path):
    at_once = [name for node in ast.parse(path.read_text()).body for name in imported_by(node)]
    assert not [name for name in at_once if name.startswith("megatron")]


def test_slicing_and_serving_leave_torch_alone():
    code = (
        "import sys; import prunebridge_shim.slicing.run, prunebridge_shim.rpc.spawned, prunebridge_shim.__main__;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
