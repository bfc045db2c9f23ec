import { LAYER, MEGATRON_LAYER } from "./blocks.js";
import type { ConfigField, HookRow, TensorRow } from "./table.js";

/** Hyperparameters of experts whose fields most families name alike. */
export const expertFields = {
  num_moe_experts: { key: "num_experts", aliases: ["num_local_experts"] },
  moe_ffn_hidden_size: { key: "moe_intermediate_size" },
  moe_router_topk: { key: "num_experts_per_tok" },
} as const satisfies Record<string, ConfigField>;

/** Gated experts as hubs have them, three matrices each, within the module `block`. */
export function separateExperts(block: string, names: { gate: string; up: string; down: string }): TensorRow[] {
  const expert = `${LAYER}.${block}.experts.{expert}`;
  const megatron = `${MEGATRON_LAYER}.mlp.experts.local_experts.{expert}`;
  return [
    { name: `${expert}.${names.gate}.weight`, axes: ["moe_ffn", "hidden"], routed: true, megatron: `${megatron}.linear_fc1.weight` },
    { name: `${expert}.${names.up}.weight`, axes: ["moe_ffn", "hidden"], routed: true, megatron: `${megatron}.linear_fc1.weight` },
    { name: `${expert}.${names.down}.weight`, axes: ["hidden", "moe_ffn"], routed: true, megatron: `${megatron}.linear_fc2.weight` },
  ];
}

/** The same in two tensors for all experts of a layer: gates above ups, as transformers 5 holds them. */
export function packedExperts(block: string): TensorRow[] {
  const experts = `${LAYER}.${block}.experts`;
  return [
    { name: `${experts}.gate_up_proj`, axes: ["expert", "moe_ffn + moe_ffn", "hidden"], routed: true },
    { name: `${experts}.down_proj`, axes: ["expert", "hidden", "moe_ffn"], routed: true },
  ];
}

/** The matrix that chooses a token's experts. */
export function router(module: string): TensorRow {
  return { name: `${LAYER}.${module}.weight`, axes: ["expert", "hidden"], megatron: `${MEGATRON_LAYER}.mlp.router.weight` };
}

/** What experts compute, under Megatron-Core's names; `module` runs all experts of a layer. */
export function expertHooks(module: string): HookRow[] {
  const experts = "decoder.layers.{layer}.mlp.experts";
  const at = { module: `${LAYER}.${module}`, side: "input" } as const;
  return [
    {
      ...at,
      importance: "moe_ffn",
      accumulator: `${experts}.local_experts.{expert}`,
      reduction: "routed_mean_abs_square",
      axis: "moe_ffn",
    },
    { ...at, importance: "expert_norm", accumulator: `${experts}.expert_l2_scores`, reduction: "routed_output_norm", axis: "expert" },
    { ...at, importance: "expert_tokens", accumulator: `${experts}.expert_sample_counts`, reduction: "routed_tokens", axis: "expert" },
  ];
}

/** What the down projection of the shared expert reads. */
export function sharedExpertHook(module: string): HookRow {
  return {
    importance: "moe_shared_ffn",
    accumulator: "decoder.layers.{layer}.mlp.shared_experts",
    module: `${LAYER}.${module}`,
    side: "input",
    reduction: "mean_abs_square",
    axis: "moe_shared_ffn",
  };
}
