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
import { decoderMasks } from "./masks.js";
import type { FamilyTable } from "./table.js";

/** Llama 2, 3.x, SmolLM2: grouped-query attention, gated MLP, RMSNorm. */
export const llama: FamilyTable = {
  family: "llama",
  architectures: ["LlamaForCausalLM"],
  fields: llamaFields,
  flags: { tied, attention_bias: flag("attention_bias", false), mlp_bias: flag("mlp_bias", false) },
  ...denseLayout([
    ...embeddings,
    ...norms({ bias: false }),
    ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias" }),
    ...mlp({ gated: true, bias: "mlp_bias" }),
  ]),
  hooks: decoderHooks,
  masks: decoderMasks,
  perLayerLists: [{ key: "layer_types" }],
  layerThresholds: [],
  loaderDemands: "hidden_size_multiple_of_heads",
  obsolete: storedRotaryFrequencies,
};
