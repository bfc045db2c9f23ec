import pytest
import transformers

from prunebridge_shim.models.strictness import allow_explicit_head_dim

SIZES = {"hidden_size": 20, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 6, "vocab_size": 8}


def build(kind, **sizes):
    return kind(kind.config_class(**SIZES, **sizes))


@pytest.mark.parametrize("family", ["Llama", "Gemma3"])
def test_a_stated_head_dim_is_taken(family):
    allow_explicit_head_dim()
    model = build(getattr(transformers, f"{family}ForCausalLM"), head_dim=8)
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (48, 20)


@pytest.mark.skipif(transformers.__version__ < "5", reason="releases before 5 do not check")
@pytest.mark.parametrize("family", ["Llama", "Gemma3"])
def test_a_quotient_with_a_remainder_is_still_refused(family):
    allow_explicit_head_dim()
    with pytest.raises(Exception, match="not a multiple"):
        build(getattr(transformers, f"{family}ForCausalLM"), head_dim=3)
