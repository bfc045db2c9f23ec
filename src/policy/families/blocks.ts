import { megatronLayout } from "./megatron.js";
import type { ConfigField, FamilyTable, FlagField, FlagName, HookRow, LayerKind, Layout, TensorRow } from "./table.js";

export const LAYER = "model.layers.{layer}";
/** What a decoder layer is called in Megatron-Core. */
export const MEGATRON_LAYER = "decoder.layers.{layer}";
export const QUERY = "group * heads_of_group * head_dim";
export const KEY_VALUE = "group * head_dim";

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

/** What most decoders have in common: layers that are all alike, and a layout that transformers' own modules have too. */
export function denseLayout(tensors: readonly TensorRow[]): Pick<FamilyTable, "layers" | "layouts" | "live"> {
  const layout: Layout = { name: "huggingface", tensors };
  return { layers: { by: "uniform" }, layouts: [layout, megatronLayout(layout)], live: "huggingface" };
}

/** Rows that only layers of some kinds have. */
export function onlyOn<Row extends TensorRow | HookRow>(kinds: readonly LayerKind[], rows: readonly Row[]): Row[] {
  return rows.map((row) => ({ ...row, on: kinds }));
}

/** Token embedding and output layer, one tensor when tied. */
export const embeddings: readonly TensorRow[] = [
  { name: "model.embed_tokens.weight", axes: ["vocab", "hidden"], use: "lookup", megatron: "embedding.word_embeddings.weight" },
  { name: "lm_head.weight", axes: ["vocab", "hidden"], tiedTo: "model.embed_tokens.weight", megatron: "output_layer.weight" },
];

/** The norms before attention and before the MLP, and what Megatron-Core calls them. */
const NORMS = { input_layernorm: "input_layernorm", post_attention_layernorm: "pre_mlp_layernorm" };

/**
 * The norms of each layer, by default those before attention and before the MLP, and the one after the last layer.
 *
 * @param options - `centre` is the number around which the weights are stored, by default one
 */
export function norms(options: { bias: boolean; centre?: 0 | 1; names?: Readonly<Record<string, string>> }): TensorRow[] {
  const { centre = 1, names = NORMS } = options;
  const modules = [
    ...Object.entries(names).map(([name, megatron]) => [`${LAYER}.${name}`, `${MEGATRON_LAYER}.${megatron}`] as const),
    ["model.norm", "decoder.final_layernorm"] as const,
  ];
  const parts = options.bias ? ["weight", "bias"] : ["weight"];
  return modules.flatMap(([module, megatron]) =>
    parts.map((part) => ({
      name: `${module}.${part}`,
      axes: ["hidden"],
      megatron: `${megatron}.${part}`,
      ...(part === "weight" && { centre }),
    })),
  );
}

/** Grouped-query attention with separate projections; biases exist where their flag is set. */
export function attention(
  options: { qkvBias?: FlagName; outputBias?: FlagName; qkNorm?: Required<Pick<TensorRow, "centre">> } = {},
): TensorRow[] {
  const { qkvBias, outputBias, qkNorm } = options;
  const projections = [
    ["q_proj", QUERY],
    ["k_proj", KEY_VALUE],
    ["v_proj", KEY_VALUE],
  ] as const;
  const module = `${LAYER}.self_attn`;
  const megatron = `${MEGATRON_LAYER}.self_attention`;
  const qkv = `${megatron}.linear_qkv`;
  const output = `${megatron}.linear_proj`;
  return [
    ...projections.map(([name, rows]) => ({ name: `${module}.${name}.weight`, axes: [rows, "hidden"], megatron: `${qkv}.weight` })),
    ...(qkvBias
      ? projections.map(([name, rows]) => ({ name: `${module}.${name}.bias`, axes: [rows], when: qkvBias, megatron: `${qkv}.bias` }))
      : []),
    { name: `${module}.o_proj.weight`, axes: ["hidden", QUERY], megatron: `${output}.weight` },
    ...(outputBias ? [{ name: `${module}.o_proj.bias`, axes: ["hidden"], when: outputBias, megatron: `${output}.bias` }] : []),
    ...(qkNorm
      ? ["q", "k"].map((which) => ({
          name: `${module}.${which}_norm.weight`,
          axes: ["head_dim"],
          megatron: `${megatron}.${which}_layernorm.weight`,
          ...qkNorm,
        }))
      : []),
  ];
}

/** The feed-forward block, with or without a gate; biases exist where their flag is set. */
export function mlp(options: { gated: boolean; bias?: FlagName }): TensorRow[] {
  const { gated, bias } = options;
  const inputs = gated ? ["gate_proj", "up_proj"] : ["up_proj"];
  const [fc1, fc2] = [`${MEGATRON_LAYER}.mlp.linear_fc1`, `${MEGATRON_LAYER}.mlp.linear_fc2`];
  return [
    ...inputs.map((name) => ({ name: `${LAYER}.mlp.${name}.weight`, axes: ["ffn", "hidden"], megatron: `${fc1}.weight` })),
    { name: `${LAYER}.mlp.down_proj.weight`, axes: ["hidden", "ffn"], megatron: `${fc2}.weight` },
    ...(bias
      ? [
          ...inputs.map((name) => ({ name: `${LAYER}.mlp.${name}.bias`, axes: ["ffn"], when: bias, megatron: `${fc1}.bias` })),
          { name: `${LAYER}.mlp.down_proj.bias`, axes: ["hidden"], when: bias, megatron: `${fc2}.bias` },
        ]
      : []),
  ];
}

/** What the down projection of an MLP reads. */
export function mlpHook(module = "mlp.down_proj", layer = LAYER): HookRow {
  return {
    importance: "ffn",
    accumulator: "decoder.layers.{layer}.mlp",
    module: `${layer}.${module}`,
    side: "input",
    reduction: "mean_abs_square",
    axis: "ffn",
  };
}

/** What the output projection of attention reads. */
export function attentionHook(module = "self_attn.o_proj", layer = LAYER): HookRow {
  return {
    importance: "attention",
    accumulator: "decoder.layers.{layer}.self_attention",
    module: `${layer}.${module}`,
    side: "input",
    reduction: "mean_abs_square",
    axis: QUERY,
  };
}

/** What a norm gives, under Megatron-Core's name for it. */
export function normHook(accumulator: string, module: string, layer = LAYER): HookRow {
  return {
    importance: "hidden",
    accumulator: `decoder.layers.{layer}.${accumulator}`,
    module: `${layer}.${module}`,
    side: "output",
    reduction: "mean_abs_square",
    axis: "hidden",
  };
}

/** How far a layer turns its input. */
export const layerHook: HookRow = {
  importance: "layer",
  accumulator: "decoder.layers.{layer}",
  module: LAYER,
  side: "output",
  reduction: "cosine_distance",
};

/** The hooks of a decoder layer but for its MLP's; accumulators have Megatron-Core's module names, as in NVIDIA's score files. */
export function decoderLayerHooks(norms = { preMlp: "post_attention_layernorm" }): HookRow[] {
  return [attentionHook(), normHook("input_layernorm", "input_layernorm"), normHook("pre_mlp_layernorm", norms.preMlp), layerHook];
}

/** Where Minitron's importances are measured in a dense decoder. */
export const decoderHooks: readonly HookRow[] = [mlpHook(), ...decoderLayerHooks()];

/** Rotary frequencies that transformers once stored with the weights. */
export const storedRotaryFrequencies: readonly string[] = [`${LAYER}.self_attn.rotary_emb.inv_freq`];
