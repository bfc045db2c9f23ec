import {
  always,
  attention,
  decoderHooks,
  embeddings,
  llamaFields,
  mlp,
  norms,
  storedRotaryFrequencies,
  tied,
  withAbsent,
} from "./blocks.js";
import type { FamilyTable } from "./table.js";

/** Mistral, Mistral-NeMo: as llama without biases, often with an explicit head_dim and a sliding window. */
export const mistral: FamilyTable = {
  family: "mistral",
  layout: "huggingface",
  architectures: ["MistralForCausalLM"],
  fields: { ...llamaFields, num_query_groups: withAbsent(llamaFields.num_query_groups, 8) },
  flags: { tied, attention_bias: always(false), mlp_bias: always(false) },
  tensors: [...embeddings, ...norms({ bias: false }), ...attention(), ...mlp({ gated: true })],
  hooks: decoderHooks,
  perLayerLists: ["layer_types"],
  layerThresholds: [],
  obsolete: storedRotaryFrequencies,
};
