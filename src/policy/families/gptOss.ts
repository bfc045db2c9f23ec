import { attention, decoderLayerHooks, embeddings, flag, LAYER, llamaFields, norms, tied, withAbsent } from "./blocks.js";
import { expertFields, expertHooks, router } from "./experts.js";
import type { FamilyTable, TensorRow } from "./table.js";

const { ffn_hidden_size: _, ...fields } = llamaFields;

/** Experts with biases, in matrices that are transposed against the other families', gates and ups in alternating columns. */
const experts: readonly TensorRow[] = [
  router("mlp.router"),
  { name: `${LAYER}.mlp.router.bias`, axes: ["expert"] },
  { name: `${LAYER}.mlp.experts.gate_up_proj`, axes: ["expert", "hidden", "moe_ffn * 2"], routed: true },
  { name: `${LAYER}.mlp.experts.gate_up_proj_bias`, axes: ["expert", "moe_ffn * 2"], routed: true, use: "bias" },
  { name: `${LAYER}.mlp.experts.down_proj`, axes: ["expert", "moe_ffn", "hidden"], routed: true },
  { name: `${LAYER}.mlp.experts.down_proj_bias`, axes: ["expert", "hidden"], routed: true, use: "bias" },
];

/** gpt-oss in bfloat16 or with experts in MXFP4: biases throughout, an attention sink for each head, every second layer without a window. */
export const gptOss: FamilyTable = {
  family: "gpt_oss",
  architectures: ["GptOssForCausalLM"],
  fields: {
    ...fields,
    ...expertFields,
    num_query_groups: withAbsent(llamaFields.num_query_groups, 8),
    kv_channels: withAbsent(llamaFields.kv_channels, 64),
    num_moe_experts: { key: "num_local_experts", aliases: ["num_experts"], absent: 128 },
    moe_ffn_hidden_size: { key: "intermediate_size" },
    moe_router_topk: withAbsent(expertFields.moe_router_topk, 4),
  },
  flags: { tied, attention_bias: flag("attention_bias", true) },
  layers: { by: "uniform" },
  layouts: [
    {
      name: "huggingface_packed",
      tensors: [
        ...embeddings,
        ...norms({ bias: false }),
        ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias" }),
        { name: `${LAYER}.self_attn.sinks`, axes: ["group * heads_of_group"] },
        ...experts,
      ],
    },
  ],
  live: "huggingface_packed",
  hooks: [...decoderLayerHooks(), ...expertHooks("mlp.experts")],
  perLayerLists: [{ key: "layer_types", absent: { values: ["sliding_attention", "full_attention"], period: 2 } }],
  layerThresholds: [],
  obsolete: [],
  mxfp4: true,
};
