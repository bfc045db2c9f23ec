import { attentionHook, flag, KEY_VALUE, layerHook, mlpHook, normHook, QUERY } from "./blocks.js";
import { layerNorm, linear } from "./modules.js";
import type { FamilyTable, TensorRow } from "./table.js";

const LAYER = "transformer.h.{layer}";
const MLP = `${LAYER}.mlp`;
const ATTENTION = `${LAYER}.attn`;

const tensors: readonly TensorRow[] = [
  { name: "transformer.wte.weight", axes: ["vocab", "hidden"], use: "lookup" },
  ...layerNorm(`${LAYER}.ln_1`),
  { name: `${ATTENTION}.q_proj.weight`, axes: [QUERY, "hidden"] },
  { name: `${ATTENTION}.k_proj.weight`, axes: [KEY_VALUE, "hidden"] },
  { name: `${ATTENTION}.v_proj.weight`, axes: [KEY_VALUE, "hidden"] },
  { name: `${ATTENTION}.out_proj.weight`, axes: ["hidden", QUERY] },
  ...linear(`${MLP}.fc_in`, "ffn", "hidden"),
  ...linear(`${MLP}.fc_out`, "hidden", "ffn"),
  ...layerNorm("transformer.ln_f"),
  { name: "lm_head.weight", axes: ["vocab", "hidden"], tiedTo: "transformer.wte.weight" },
  { name: "lm_head.bias", axes: ["vocab"] },
];

const heads = { key: "n_head", aliases: ["num_attention_heads"] };

/** GPT-J: attention and MLP side by side behind one LayerNorm, rotary positions on a part of each head, a bias on the logits. */
export const gptj: FamilyTable = {
  family: "gptj",
  architectures: ["GPTJForCausalLM"],
  fields: {
    num_layers: { key: "n_layer", aliases: ["num_hidden_layers"] },
    hidden_size: { key: "n_embd", aliases: ["hidden_size"] },
    ffn_hidden_size: { key: "n_inner", absent: { multiple: 4, of: "hidden_size" }, null: { multiple: 4, of: "hidden_size" } },
    num_attention_heads: heads,
    num_query_groups: heads,
    kv_channels: { key: "head_dim", absent: { quotient: ["hidden_size", "num_attention_heads"] } },
    vocab_size: { key: "vocab_size" },
  },
  flags: { tied: flag("tie_word_embeddings", false) },
  layers: { by: "uniform" },
  layouts: [{ name: "huggingface", tensors }],
  live: "huggingface",
  impliedHeadDim: true,
  hooks: [
    mlpHook("mlp.fc_out", LAYER),
    attentionHook("attn.out_proj", LAYER),
    normHook("input_layernorm", "ln_1", LAYER),
    { ...layerHook, module: LAYER },
  ],
  masks: {
    ffn: { name: `${MLP}.fc_in.out_features`, module: `${MLP}.fc_in`, side: "output", attributes: {} },
    heads: {
      name: `${ATTENTION}.num_attention_heads`,
      module: `${ATTENTION}.out_proj`,
      side: "input",
      attributes: { [ATTENTION]: { num_attention_heads: "group * heads_of_group" } },
    },
  },
  perLayerLists: [],
  layerThresholds: [],
  obsolete: [`${ATTENTION}.bias`, `${ATTENTION}.masked_bias`],
};
