import { LAYER } from "./blocks.js";
import type { Masks } from "./table.js";

const MLP = `${LAYER}.mlp`;
const ATTENTION = `${LAYER}.self_attn`;

/**
 * The masks of decoders that transformers grew from llama's. Gate and up are one hyperparameter: a mask on their product, which the down
 * projection reads, takes a unit out of both where it is zero.
 */
export const decoderMasks: Masks = {
  ffn: { name: `${MLP}.gate_proj.out_features`, module: `${MLP}.down_proj`, side: "input", attributes: {} },
  heads: {
    name: `${ATTENTION}.num_attention_heads`,
    module: `${ATTENTION}.o_proj`,
    side: "input",
    attributes: { [ATTENTION]: { num_key_value_groups: "heads_of_group" } },
  },
};
