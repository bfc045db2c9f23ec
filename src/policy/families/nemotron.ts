import {
  attention,
  decoderHooks,
  denseLayout,
  embeddings,
  flag,
  llamaFields,
  mlp,
  norms,
  storedRotaryFrequencies,
  tied,
} from "./blocks.js";
import type { FamilyTable } from "./table.js";

/** Nemotron-4 and Minitron: LayerNorm with bias and weights around zero (LayerNorm1P), squared ReLU without a gate. */
export const nemotron: FamilyTable = {
  family: "nemotron",
  architectures: ["NemotronForCausalLM"],
  fields: llamaFields,
  flags: {
    tied,
    attention_bias: flag("attention_bias", false),
    mlp_bias: flag("mlp_bias", false),
  },
  ...denseLayout([
    ...embeddings,
    ...norms({ bias: true, centre: 0 }),
    ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias" }),
    ...mlp({ gated: false, bias: "mlp_bias" }),
  ]),
  hooks: decoderHooks,
  perLayerLists: [],
  layerThresholds: [],
  obsolete: storedRotaryFrequencies,
};
