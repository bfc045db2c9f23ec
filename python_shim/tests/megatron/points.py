"""What the golden scores were taken of, as hook points with Megatron-Core's names, and batches to feed."""

from golden import case_of

from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.errors import cancelled
from prunebridge_shim.tensors import Ask, HostTensor


def points_of(name):
    """Hook points of a golden parent, with accumulators named as in its scores."""
    case = case_of(name)
    layers = [f"decoder.layers.{number}" for number in range(case["num_layers"])]
    of_mlp = of_experts if "num_moe_experts" in case else of_dense
    return [point for layer in layers for point in (*of_layer(layer), *of_mlp(f"{layer}.mlp"))]


def of_layer(layer):
    return [
        HookPoint(f"{layer}.self_attention", f"{layer}.self_attention.linear_proj", "mean_abs_square_in"),
        HookPoint(f"{layer}.input_layernorm", f"{layer}.input_layernorm", "mean_abs_square_out"),
        HookPoint(f"{layer}.pre_mlp_layernorm", f"{layer}.pre_mlp_layernorm", "mean_abs_square_out"),
        HookPoint(layer, layer, "cosine_distance"),
    ]


def of_dense(mlp):
    return [HookPoint(mlp, f"{mlp}.linear_fc2", "mean_abs_square_in")]


def of_experts(mlp):
    experts = f"{mlp}.experts"
    return [
        HookPoint(f"{experts}.local_experts", experts, "routed_mean_abs_square"),
        HookPoint(f"{experts}.expert_l2_scores", experts, "routed_output_norm"),
        HookPoint(f"{experts}.expert_sample_counts", experts, "routed_tokens"),
    ]


def feed_of(ids):
    return [Ask({"input_ids": HostTensor("I64", one.numpy())}) for one in ids]


def no_tick(_done, _total):
    pass


def vain_requests(name, ids):
    """Points, a feed and a tick each, of which one is wrong."""
    good, feed = points_of(name)[:1], feed_of(ids)
    nowhere = HookPoint("k", "decoder.layers.3.mlp.linear_fc3", "mean_abs_square_in")
    return {
        "nowhere": ([nowhere], feed, no_tick),
        "twice": (good * 2, feed, no_tick),
        "no experts": ([HookPoint("k", "decoder.layers.3.mlp", "routed_tokens")], feed, no_tick),
        "parts of heads": (
            [HookPoint("k", "decoder.layers.3.self_attention.core_attention", "mean_abs_square_in")],
            feed,
            no_tick,
        ),
        "other channels": ([HookPoint("k", "decoder.layers.3.mlp.linear_fc2", "cosine_distance")], feed, no_tick),
        "no numbers": ([HookPoint("k", "decoder.signs", "mean_abs_square_out")], feed, no_tick),
        "never runs": (
            [HookPoint("k", "output_layer", "mean_abs_square_in"), HookPoint("n", "decoder.idle", "cosine_distance")],
            feed,
            no_tick,
        ),
        "no batch": (good, [], no_tick),
        "no such token": (good, feed_of([ids[0], ids[1] + 1000]), no_tick),
        "odd length": (good, feed_of([ids[0][:, :31]]), no_tick),
        "a wish": (good, [Ask(feed[0].batch, "logits")], no_tick),
        "more than ids": (good, [Ask({**feed[0].batch, "mask": feed[0].batch["input_ids"]})], no_tick),
        "cancelled": (good, feed, cancel_after(2)),
    }


def cancel_after(batches):
    def tick(done, _total):
        if done >= batches:
            raise cancelled()

    return tick
