"""Which network is built of what a checkpoint states, and which is none that can be."""

import json

import pytest

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.hosting.folder import find_checkpoint
from prunebridge_shim.hosting.network import network_of

pytest.importorskip("megatron.core")

LLAMA = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 8, "gated_linear_unit": True, "seq_length": 8192}
SCALED = {"scale_factor": 32.0, "low_freq_factor": 1, "high_freq_factor": 4, "old_context_len": 8192}


@pytest.fixture
def network(tmp_path):
    """Reads a config that NeMo 2 has written."""
    (tmp_path / "context").mkdir()

    def read(**changes):
        (tmp_path / "context" / "model.yaml").write_text(json.dumps({"config": {**LLAMA, **changes}}))
        return network_of(find_checkpoint(tmp_path))

    return read


def test_rotary_frequencies_are_scaled_as_nemo_states_it(network):
    model = network(**SCALED, softmax_type="vanilla").model
    assert (model["rope_scaling"], model["rope_scaling_factor"]) == (True, 32.0)
    assert "rope_scaling" not in network().model


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({**SCALED, "old_context_len": 4096}, "old_context_len 4096"),
        ({**SCALED, "high_freq_factor": 2.0}, "high_freq_factor 2.0"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"query_pre_attn_scalar": 256}, "query_pre_attn_scalar"),
        ({"softmax_type": "learnable"}, "softmax_type 'learnable'"),
        ({"_target_": "nemo.collections.llm.gpt.model.gemma.GemmaConfig2B"}, "GemmaConfig2B"),
    ],
)
def test_a_network_that_is_not_built_is_refused(network, changes, said):
    with pytest.raises(ShimError, match="of which no network is built here") as caught:
        network(**changes)
    assert caught.value.reason is Reason.BAD_CHECKPOINT
    assert said in caught.value.message
