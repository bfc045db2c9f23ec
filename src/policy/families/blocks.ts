import type { ConfigField, FamilyTable, FlagField, FlagName, HookRow, TensorRow } from "./table.js";

const LAYER = "model.layers.{layer}";
const QUERY = "group * heads_of_group * head_dim";
const KEY_VALUE = "group * head_dim";

/** The config fields of decoders that transformers grew from llama's. */
export const llamaFields = {
  num_layers: { key: "num_hidden_layers" },
  hidden_size: { key: "hidden_size" },
  ffn_hidden_size: { key: "intermediate_size" },
  num_attention_heads: { key: "num_attention_heads" },
  num_query_groups: {
    key: "num_key_value_heads",
    absent: { sameAs: "num_attention_heads" },
    null: { sameAs: "num_attention_heads" },
  },
  kv_channels: {
    key: "head_dim",
    absent: { quotient: ["hidden_size", "num_attention_heads"] },
    null: { quotient: ["hidden_size", "num_attention_heads"] },
  },
  vocab_size: { key: "vocab_size" },
} as const satisfies FamilyTable["fields"];

/** The same field, where the family's config class has a number of its own for an absent one. */
export function withAbsent(field: ConfigField, absent: number): ConfigField {
  return { ...field, absent };
}

/** A switch that config.json names. */
export function flag(key: string, absent: boolean): FlagField {
  return { key, absent };
}

/** A switch that the family fixes. */
export function always(value: boolean): FlagField {
  return { key: null, absent: value };
}

export const tied: FlagField = flag("tie_word_embeddings", false);

/** Token embedding and output layer, one tensor when tied. */
export const embeddings: readonly TensorRow[] = [
  { name: "model.embed_tokens.weight", axes: ["vocab", "hidden"], lookup: true },
  { name: "lm_head.weight", axes: ["vocab", "hidden"], tiedTo: "model.embed_tokens.weight" },
];

/** The norms before attention, before the MLP and after the last layer. */
export function norms(options: { bias: boolean }): TensorRow[] {
  const modules = [`${LAYER}.input_layernorm`, `${LAYER}.post_attention_layernorm`, "model.norm"];
  const parts = options.bias ? ["weight", "bias"] : ["weight"];
  return modules.flatMap((module) => parts.map((part) => ({ name: `${module}.${part}`, axes: ["hidden"] })));
}

/** Grouped-query attention with separate projections; biases exist where their flag is set. */
export function attention(options: { qkvBias?: FlagName; outputBias?: FlagName; qkNorm?: boolean } = {}): TensorRow[] {
  const { qkvBias, outputBias, qkNorm } = options;
  const projections = [
    ["q_proj", QUERY],
    ["k_proj", KEY_VALUE],
    ["v_proj", KEY_VALUE],
  ] as const;
  return [
    ...projections.map(([name, rows]) => ({ name: `${LAYER}.self_attn.${name}.weight`, axes: [rows, "hidden"] })),
    ...(qkvBias ? projections.map(([name, rows]) => ({ name: `${LAYER}.self_attn.${name}.bias`, axes: [rows], when: qkvBias })) : []),
    { name: `${LAYER}.self_attn.o_proj.weight`, axes: ["hidden", QUERY] },
    ...(outputBias ? [{ name: `${LAYER}.self_attn.o_proj.bias`, axes: ["hidden"], when: outputBias }] : []),
    ...(qkNorm ? ["q_norm", "k_norm"].map((name) => ({ name: `${LAYER}.self_attn.${name}.weight`, axes: ["head_dim"] })) : []),
  ];
}

/** The feed-forward block, with or without a gate; biases exist where their flag is set. */
export function mlp(options: { gated: boolean; bias?: FlagName }): TensorRow[] {
  const { gated, bias } = options;
  const inputs = gated ? ["gate_proj", "up_proj"] : ["up_proj"];
  return [
    ...inputs.map((name) => ({ name: `${LAYER}.mlp.${name}.weight`, axes: ["ffn", "hidden"] })),
    { name: `${LAYER}.mlp.down_proj.weight`, axes: ["hidden", "ffn"] },
    ...(bias
      ? [
          ...inputs.map((name) => ({ name: `${LAYER}.mlp.${name}.bias`, axes: ["ffn"], when: bias })),
          { name: `${LAYER}.mlp.down_proj.bias`, axes: ["hidden"], when: bias },
        ]
      : []),
  ];
}

/** Where Minitron's importances are measured; accumulators have Megatron-Core's module names, as in NVIDIA's score files. */
export const decoderHooks: readonly HookRow[] = [
  {
    importance: "ffn",
    accumulator: "decoder.layers.{layer}.mlp",
    module: `${LAYER}.mlp.down_proj`,
    side: "input",
    reduction: "mean_abs_square",
    axis: "ffn",
  },
  {
    importance: "attention",
    accumulator: "decoder.layers.{layer}.self_attention",
    module: `${LAYER}.self_attn.o_proj`,
    side: "input",
    reduction: "mean_abs_square",
    axis: QUERY,
  },
  {
    importance: "hidden",
    accumulator: "decoder.layers.{layer}.input_layernorm",
    module: `${LAYER}.input_layernorm`,
    side: "output",
    reduction: "mean_abs_square",
    axis: "hidden",
  },
  {
    importance: "hidden",
    accumulator: "decoder.layers.{layer}.pre_mlp_layernorm",
    module: `${LAYER}.post_attention_layernorm`,
    side: "output",
    reduction: "mean_abs_square",
    axis: "hidden",
  },
  {
    importance: "layer",
    accumulator: "decoder.layers.{layer}",
    module: LAYER,
    side: "output",
    reduction: "cosine_distance",
  },
];

/** Rotary frequencies that transformers once stored with the weights. */
export const storedRotaryFrequencies: readonly string[] = [`${LAYER}.self_attn.rotary_emb.inv_freq`];
