import { attention, decoderLayerHooks, embeddings, flag, llamaFields, mlp, mlpHook, norms, onlyOn, tied, withAbsent } from "./blocks.js";
import { expertFields, expertHooks, packedExperts, router, separateExperts } from "./experts.js";
import { megatronLayout } from "./megatron.js";
import type { FamilyTable, Layout, TensorRow } from "./table.js";

const everywhere: readonly TensorRow[] = [
  ...embeddings,
  ...norms({ bias: false }),
  ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias", qkNorm: { centre: 1 } }),
  ...onlyOn(["dense"], mlp({ gated: true })),
];
const separate = separateExperts("mlp", { gate: "gate_proj", up: "up_proj", down: "down_proj" });
const huggingface: Layout = { name: "huggingface", tensors: [...everywhere, ...onlyOn(["sparse"], [router("mlp.gate"), ...separate])] };

/** Qwen 3 MoE: as qwen3 with routed experts, or a dense MLP, in each layer. */
export const qwen3Moe: FamilyTable = {
  family: "qwen3_moe",
  architectures: ["Qwen3MoeForCausalLM"],
  fields: {
    ...llamaFields,
    ...expertFields,
    num_query_groups: withAbsent(llamaFields.num_query_groups, 4),
    num_moe_experts: withAbsent(expertFields.num_moe_experts, 128),
    moe_ffn_hidden_size: withAbsent(expertFields.moe_ffn_hidden_size, 768),
    moe_router_topk: withAbsent(expertFields.moe_router_topk, 8),
  },
  flags: { tied, attention_bias: flag("attention_bias", false) },
  layers: { by: "sparse_step", dense: "mlp_only_layers", step: "decoder_sparse_step" },
  layouts: [
    huggingface,
    megatronLayout(huggingface),
    { name: "huggingface_packed", tensors: [...everywhere, ...onlyOn(["sparse"], [router("mlp.gate"), ...packedExperts("mlp")])] },
  ],
  live: "huggingface_packed",
  hooks: [...decoderLayerHooks(), ...onlyOn(["dense"], [mlpHook()]), ...onlyOn(["sparse"], expertHooks("mlp.experts"))],
  perLayerLists: [],
  layerThresholds: [],
  obsolete: [],
};
