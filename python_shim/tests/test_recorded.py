"""Messages that were recorded once: what either side sends today must be read by what the other sent then."""

import base64
import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, session_pb2

RECORDED = Path(__file__).parents[2] / "test" / "contract" / "recorded.json"
MESSAGES = {**vars(operation_pb2), **vars(session_pb2)}


@pytest.mark.skipif(not RECORDED.exists(), reason="the package stands outside of its repository")
def test_reads_and_writes_what_was_recorded():
    recorded = json.loads(RECORDED.read_text())
    assert len(recorded) >= 12
    for entry in recorded:
        kind = MESSAGES[entry["type"]]
        expected = json_format.ParseDict(entry["json"], kind())
        message = kind.FromString(base64.b64decode(entry["base64"]))
        assert message == expected
        assert message.SerializeToString(deterministic=True) == base64.b64decode(entry["base64"])
