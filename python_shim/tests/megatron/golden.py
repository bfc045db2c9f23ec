"""The golden parents, without Megatron-Core."""

import json
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[3] / "test" / "golden"


def case_of(name):
    return json.loads((GOLDEN / name / "case.json").read_text())["config"]
