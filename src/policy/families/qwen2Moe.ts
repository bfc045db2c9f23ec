import {
  attention,
  decoderLayerHooks,
  embeddings,
  flag,
  LAYER,
  llamaFields,
  MEGATRON_LAYER,
  mlp,
  mlpHook,
  norms,
  onlyOn,
  storedRotaryFrequencies,
  tied,
  withAbsent,
} from "./blocks.js";
import { expertFields, expertHooks, packedExperts, router, separateExperts, sharedExpertHook } from "./experts.js";
import { megatronLayout } from "./megatron.js";
import type { FamilyTable, Layout, TensorRow } from "./table.js";

const everywhere: readonly TensorRow[] = [
  ...embeddings,
  ...norms({ bias: false }),
  ...attention({ qkvBias: "attention_bias" }),
  ...onlyOn(["dense"], mlp({ gated: true })),
];
const SHARED = `${MEGATRON_LAYER}.mlp.shared_experts`;
const shared: readonly TensorRow[] = [
  router("mlp.gate"),
  { name: `${LAYER}.mlp.shared_expert.gate_proj.weight`, axes: ["moe_shared_ffn", "hidden"], megatron: `${SHARED}.linear_fc1.weight` },
  { name: `${LAYER}.mlp.shared_expert.up_proj.weight`, axes: ["moe_shared_ffn", "hidden"], megatron: `${SHARED}.linear_fc1.weight` },
  { name: `${LAYER}.mlp.shared_expert.down_proj.weight`, axes: ["hidden", "moe_shared_ffn"], megatron: `${SHARED}.linear_fc2.weight` },
  { name: `${LAYER}.mlp.shared_expert_gate.weight`, axes: ["1", "hidden"], megatron: `${SHARED}.gate_weight` },
];
const separate = separateExperts("mlp", { gate: "gate_proj", up: "up_proj", down: "down_proj" });
const huggingface: Layout = { name: "huggingface", tensors: [...everywhere, ...onlyOn(["sparse"], [...shared, ...separate])] };

/** Qwen 1.5 and 2 MoE: as qwen2 with routed experts and one shared expert behind a gate, or a dense MLP, in each layer. */
export const qwen2Moe: FamilyTable = {
  family: "qwen2_moe",
  architectures: ["Qwen2MoeForCausalLM"],
  fields: {
    ...llamaFields,
    ...expertFields,
    num_query_groups: withAbsent(llamaFields.num_query_groups, 16),
    num_moe_experts: withAbsent(expertFields.num_moe_experts, 60),
    moe_ffn_hidden_size: withAbsent(expertFields.moe_ffn_hidden_size, 1408),
    moe_shared_expert_intermediate_size: { key: "shared_expert_intermediate_size", absent: 5632 },
    moe_router_topk: withAbsent(expertFields.moe_router_topk, 4),
  },
  flags: { tied, attention_bias: flag("qkv_bias", true) },
  layers: { by: "sparse_step", dense: "mlp_only_layers", step: "decoder_sparse_step" },
  layouts: [
    huggingface,
    megatronLayout(huggingface),
    { name: "huggingface_packed", tensors: [...everywhere, ...onlyOn(["sparse"], [...shared, ...packedExperts("mlp")])] },
  ],
  live: "huggingface_packed",
  hooks: [
    ...decoderLayerHooks(),
    ...onlyOn(["dense"], [mlpHook()]),
    ...onlyOn(["sparse"], [...expertHooks("mlp.experts"), sharedExpertHook("mlp.shared_expert.down_proj")]),
  ],
  perLayerLists: [
    {
      key: "layer_types",
      absent: {
        values: ["sliding_attention", "full_attention"],
        period: 2,
        thresholdKey: "max_window_layers",
        when: "use_sliding_window",
      },
    },
  ],
  layerThresholds: [],
  obsolete: storedRotaryFrequencies,
};
