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
import type { FamilyTable, TensorRow } from "./table.js";

/** Hugging Face stores weights of norms around zero (LayerNorm1P), Megatron-Core around one unless layernorm_zero_centered_gamma is set. */
function aroundZero(row: TensorRow): TensorRow {
  return row.name.endsWith(".weight") ? { ...row, megatronOffset: { by: 1, unless: "zero_centered_norms" } } : row;
}

/** Nemotron-4 and Minitron: LayerNorm with bias, squared ReLU without a gate. */
export const nemotron: FamilyTable = {
  family: "nemotron",
  architectures: ["NemotronForCausalLM"],
  fields: llamaFields,
  flags: {
    tied,
    attention_bias: flag("attention_bias", false),
    mlp_bias: flag("mlp_bias", false),
    zero_centered_norms: flag("layernorm_zero_centered_gamma", false),
  },
  ...denseLayout([
    ...embeddings,
    ...norms({ bias: true }).map(aroundZero),
    ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias" }),
    ...mlp({ gated: false, bias: "mlp_bias" }),
  ]),
  hooks: decoderHooks,
  perLayerLists: [],
  layerThresholds: [],
  obsolete: storedRotaryFrequencies,
};
