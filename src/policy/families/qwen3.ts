import { attention, decoderHooks, denseLayout, embeddings, flag, llamaFields, mlp, norms, tied, withAbsent } from "./blocks.js";
import { decoderMasks } from "./masks.js";
import type { FamilyTable } from "./table.js";

/** Qwen 3, dense: as qwen2 with norms on query and key heads and a head_dim of its own. */
export const qwen3: FamilyTable = {
  family: "qwen3",
  architectures: ["Qwen3ForCausalLM"],
  fields: {
    ...llamaFields,
    num_query_groups: withAbsent(llamaFields.num_query_groups, 32),
    kv_channels: withAbsent(llamaFields.kv_channels, 128),
  },
  flags: { tied, attention_bias: flag("attention_bias", false) },
  ...denseLayout([
    ...embeddings,
    ...norms({ bias: false }),
    ...attention({ qkvBias: "attention_bias", outputBias: "attention_bias", qkNorm: { centre: 1 } }),
    ...mlp({ gated: true }),
  ]),
  hooks: decoderHooks,
  masks: decoderMasks,
  perLayerLists: [{ key: "layer_types" }],
  layerThresholds: ["max_window_layers"],
  obsolete: [],
};
