import { attention, decoderLayerHooks, denseLayout, embeddings, flag, llamaFields, mlp, mlpHook, norms, withAbsent } from "./blocks.js";
import type { FamilyTable } from "./table.js";

const NORMS = {
  input_layernorm: "input_layernorm",
  post_attention_layernorm: "self_attention.linear_proj.post_layernorm",
  pre_feedforward_layernorm: "pre_mlp_layernorm",
  post_feedforward_layernorm: "mlp.linear_fc2.post_layernorm",
};

/** Gemma 3, text: four zero-centred norms in a layer, norms on query and key heads, tied embeddings, every sixth layer without a window. */
export const gemma3: FamilyTable = {
  family: "gemma3_text",
  architectures: ["Gemma3ForCausalLM"],
  fields: {
    ...llamaFields,
    num_query_groups: withAbsent(llamaFields.num_query_groups, 4),
    kv_channels: withAbsent(llamaFields.kv_channels, 256),
  },
  flags: { tied: flag("tie_word_embeddings", true), attention_bias: flag("attention_bias", false) },
  ...denseLayout([
    ...embeddings,
    ...norms({ bias: false, centre: 0, names: NORMS }),
    ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias", qkNorm: { centre: 0 } }),
    ...mlp({ gated: true }),
  ]),
  hooks: [mlpHook(), ...decoderLayerHooks({ preMlp: "pre_feedforward_layernorm" })],
  perLayerLists: [
    {
      key: "layer_types",
      absent: { values: ["sliding_attention", "full_attention"], period: 6, periodKey: "sliding_window_pattern" },
    },
  ],
  layerThresholds: [],
  loaderDemands: "hidden_size_multiple_of_heads",
  scalesEmbeddings: true,
  obsolete: [],
};
