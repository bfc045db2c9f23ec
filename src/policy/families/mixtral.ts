import { attention, decoderLayerHooks, embeddings, llamaFields, norms, storedRotaryFrequencies, tied, withAbsent } from "./blocks.js";
import { expertFields, expertHooks, packedExperts, router, separateExperts } from "./experts.js";
import { megatronLayout } from "./megatron.js";
import type { FamilyTable, Layout } from "./table.js";

const { ffn_hidden_size: _, ...fields } = llamaFields;
const dense = [...embeddings, ...norms({ bias: false }), ...attention()];
const huggingface: Layout = {
  name: "huggingface",
  tensors: [...dense, router("block_sparse_moe.gate"), ...separateExperts("block_sparse_moe", { gate: "w1", up: "w3", down: "w2" })],
};

/** Mixtral: as mistral with experts in every layer; intermediate_size is an expert's. */
export const mixtral: FamilyTable = {
  family: "mixtral",
  architectures: ["MixtralForCausalLM"],
  fields: {
    ...fields,
    ...expertFields,
    num_query_groups: withAbsent(llamaFields.num_query_groups, 8),
    num_moe_experts: { key: "num_local_experts", aliases: ["num_experts"], absent: 8 },
    moe_ffn_hidden_size: { key: "intermediate_size" },
    moe_router_topk: withAbsent(expertFields.moe_router_topk, 2),
  },
  flags: { tied },
  layers: { by: "uniform" },
  layouts: [
    huggingface,
    megatronLayout(huggingface),
    { name: "huggingface_packed", tensors: [...dense, router("mlp.gate"), ...packedExperts("mlp")] },
  ],
  live: "huggingface_packed",
  hooks: [...decoderLayerHooks(), ...expertHooks("mlp.experts")],
  perLayerLists: [],
  layerThresholds: [],
  obsolete: storedRotaryFrequencies,
};
