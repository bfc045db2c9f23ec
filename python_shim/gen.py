"""Generates the protocol's Python code: `python gen.py [OUT]`, by default into the package.

Needs grpcio-tools 1.62: newer generators write code that refuses the older protobuf and grpcio of NeMo's containers.
"""

import re
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PROTO = ROOT.parent / "proto"
PACKAGE = "prunebridge_shim.gen"


def generate(out: Path) -> None:
    """Writes the modules of every proto file below `out`, importing one another as parts of the package."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{PROTO}", *outputs, *files]) != 0:
        raise SystemExit(f"protoc failed on {PROTO}")
    for path in sorted([*out.rglob("*_pb2*.py"), *out.rglob("*_pb2.pyi")]):
        source = path.read_text()
        path.write_text(re.sub(r"^from (prunebridge\.)", rf"from {PACKAGE}.\1", source, flags=re.MULTILINE))
    for folder in [out, *(path for path in sorted(out.rglob("*")) if path.is_dir() and path.name != "__pycache__")]:
        (folder / "__init__.py").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "prunebridge_shim" / "gen")
