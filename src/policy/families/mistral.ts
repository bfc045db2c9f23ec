import {
  attention,
  decoderHooks,
  denseLayout,
  embeddings,
  llamaFields,
  mlp,
  norms,
  storedRotaryFrequencies,
  tied,
  withAbsent,
} from "./blocks.js";
import { decoderMasks } from "./masks.js";
import type { FamilyTable } from "./table.js";

/** Mistral, Mistral-NeMo: as llama without biases, often with an explicit head_dim and a sliding window. */
export const mistral: FamilyTable = {
  family: "mistral",
  architectures: ["MistralForCausalLM"],
  fields: { ...llamaFields, num_query_groups: withAbsent(llamaFields.num_query_groups, 8) },
  flags: { tied },
  ...denseLayout([...embeddings, ...norms({ bias: false }), ...attention(), ...mlp({ gated: true })]),
  hooks: decoderHooks,
  masks: decoderMasks,
  perLayerLists: [{ key: "layer_types" }],
  layerThresholds: [],
  obsolete: storedRotaryFrequencies,
};
