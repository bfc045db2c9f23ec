"""The norms of a layer, each of which may be one with the projection behind it."""

FUSED_WITH = {"input_layernorm": "self_attention.linear_qkv", "pre_mlp_layernorm": "mlp.linear_fc1"}
"""The projections, by the norms."""


def apart(name: str) -> str:
    """The name of a weight where norms are modules of their own, as in the local layer spec."""
    for norm, fused in FUSED_WITH.items():
        name = name.replace(f".{fused}.layer_norm_", f".{norm}.")
    return name
