import {
  always,
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

/** Qwen 2 and 2.5: as llama with biases on the query, key and value projections; the window starts at `max_window_layers`. */
export const qwen2: FamilyTable = {
  family: "qwen2",
  architectures: ["Qwen2ForCausalLM"],
  fields: { ...llamaFields, num_query_groups: withAbsent(llamaFields.num_query_groups, 32) },
  flags: { tied, attention_bias: always(true) },
  ...denseLayout([...embeddings, ...norms({ bias: false }), ...attention({ qkvBias: "attention_bias" }), ...mlp({ gated: true })]),
  hooks: decoderHooks,
  masks: decoderMasks,
  perLayerLists: [{ key: "layer_types" }],
  layerThresholds: ["max_window_layers"],
  obsolete: storedRotaryFrequencies,
};
