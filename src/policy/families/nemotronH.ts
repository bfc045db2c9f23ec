import { attentionHook, flag, KEY_VALUE, layerHook, llamaFields, MEGATRON_LAYER, mlpHook, normHook, onlyOn, QUERY } from "./blocks.js";
import { expertHooks, sharedExpertHook } from "./experts.js";
import { megatronLayout } from "./megatron.js";
import type { FamilyTable, FlagName, HookRow, LayerKind, Layout, TensorRow } from "./table.js";

const CHANNELS = "mamba_group * mamba_heads_of_group * mamba_head_dim";
const HEADS = "mamba_group * mamba_heads_of_group";
const STATE = "mamba_group * mamba_state";
/** z, x, B, C and dt, one below the other. */
const IN_PROJ = `${CHANNELS} + ${CHANNELS} + ${STATE} + ${STATE} + ${HEADS}`;
const X_OF_IN_PROJ = 1;
const CONV = `${CHANNELS} + ${STATE} + ${STATE}`;

/** What each layer is, one block behind one norm: by its character in the pattern, or by its name in the list, older spellings included. */
const kindOf: Readonly<Record<string, LayerKind>> = {
  M: "mamba",
  "*": "attention",
  "-": "mlp",
  E: "moe",
  linear_attention: "mamba",
  mamba: "mamba",
  full_attention: "attention",
  attention: "attention",
  mlp: "mlp",
  moe: "moe",
};

/** The Transformer Engine fuses a layer's norm with the projection behind it. */
const MEGATRON_NORMS: Readonly<Partial<Record<LayerKind, string>>> = {
  mamba: `${MEGATRON_LAYER}.mixer.in_proj.layer_norm_weight`,
  attention: `${MEGATRON_LAYER}.self_attention.linear_qkv.layer_norm_weight`,
  mlp: `${MEGATRON_LAYER}.mlp.linear_fc1.layer_norm_weight`,
  moe: `${MEGATRON_LAYER}.pre_mlp_layernorm.weight`,
};
const EXPERT = `${MEGATRON_LAYER}.mlp.experts.local_experts.{expert}`;

type Namer = (name: string) => string;
const linear = (name: string, axes: readonly [string, string], megatron: string, bias?: FlagName): TensorRow[] => [
  { name: `${name}.weight`, axes, megatron: `${MEGATRON_LAYER}.${megatron}.weight` },
  ...(bias ? [{ name: `${name}.bias`, axes: [axes[0]], when: bias, megatron: `${MEGATRON_LAYER}.${megatron}.bias` }] : []),
];

function mambaRows(mixer: Namer): TensorRow[] {
  const own = (name: string, axes: readonly string[]): TensorRow => ({
    name: mixer(name),
    axes,
    megatron: `${MEGATRON_LAYER}.mixer.${name}`,
  });
  return [
    ...linear(mixer("in_proj"), [IN_PROJ, "hidden"], "mixer.in_proj", "mamba_bias"),
    own("conv1d.weight", [CONV, "1", "conv_kernel"]),
    { ...own("conv1d.bias", [CONV]), when: "conv_bias" },
    own("A_log", [HEADS]),
    own("D", [HEADS]),
    own("dt_bias", [HEADS]),
    own("norm.weight", [CHANNELS]),
    ...linear(mixer("out_proj"), ["hidden", CHANNELS], "mixer.out_proj", "mamba_bias"),
  ];
}

function attentionRows(mixer: Namer): TensorRow[] {
  return [
    ...linear(mixer("q_proj"), [QUERY, "hidden"], "self_attention.linear_qkv"),
    ...linear(mixer("k_proj"), [KEY_VALUE, "hidden"], "self_attention.linear_qkv"),
    ...linear(mixer("v_proj"), [KEY_VALUE, "hidden"], "self_attention.linear_qkv"),
    ...linear(mixer("o_proj"), ["hidden", QUERY], "self_attention.linear_proj"),
  ];
}

function moeRows(mixer: Namer, experts: readonly TensorRow[]): TensorRow[] {
  const latent = (rows: TensorRow[]): TensorRow[] => rows.map((row) => ({ ...row, when: ["latent", ...[row.when ?? []].flat()] }));
  const router = `${MEGATRON_LAYER}.mlp.router`;
  return [
    { name: mixer("gate.weight"), axes: ["expert", "hidden"], megatron: `${router}.weight` },
    { name: mixer("gate.e_score_correction_bias"), axes: ["expert"], use: "buffer", megatron: `${router}.expert_bias` },
    ...linear(mixer("shared_experts.up_proj"), ["moe_shared_ffn", "hidden"], "mlp.shared_experts.linear_fc1", "mlp_bias"),
    ...linear(mixer("shared_experts.down_proj"), ["hidden", "moe_shared_ffn"], "mlp.shared_experts.linear_fc2", "mlp_bias"),
    ...latent(linear(mixer("fc1_latent_proj"), ["moe_latent", "hidden"], "mlp.fc1_latent_proj", "mlp_bias")),
    ...latent(linear(mixer("fc2_latent_proj"), ["hidden", "moe_latent"], "mlp.fc2_latent_proj", "mlp_bias")),
    ...experts,
  ];
}

/** Experts without a gate; they read and write hidden channels, or latent ones. */
function experts(up: string, down: string, axes: (io: string) => { up: string[]; down: string[] }): TensorRow[] {
  const [direct, latent] = [axes("hidden"), axes("moe_latent")];
  return [
    { name: up, axes: direct.up, unless: "latent", routed: true, megatron: `${EXPERT}.linear_fc1.weight` },
    { name: up, axes: latent.up, when: "latent", routed: true, megatron: `${EXPERT}.linear_fc1.weight` },
    { name: down, axes: direct.down, unless: "latent", routed: true, megatron: `${EXPERT}.linear_fc2.weight` },
    { name: down, axes: latent.down, when: "latent", routed: true, megatron: `${EXPERT}.linear_fc2.weight` },
  ];
}

function rows(base: "backbone" | "model", expertRows: (mixer: Namer) => TensorRow[]): TensorRow[] {
  const layer = `${base}.layers.{layer}`;
  const mixer: Namer = (name) => `${layer}.mixer.${name}`;
  return [
    {
      name: `${base}.embeddings.weight`,
      axes: ["vocab", "hidden"],
      use: "lookup",
      megatron: "embedding.word_embeddings.weight",
      ...(base === "backbone" && { aliases: ["backbone.embedding.weight"] }),
    },
    { name: "lm_head.weight", axes: ["vocab", "hidden"], megatron: "output_layer.weight" },
    { name: `${base}.norm_f.weight`, axes: ["hidden"], megatron: "decoder.final_norm.weight", centre: 1 },
    { name: `${layer}.norm.weight`, axes: ["hidden"], megatron: MEGATRON_NORMS, centre: 1 },
    ...onlyOn(["mamba"], mambaRows(mixer)),
    ...onlyOn(["attention"], attentionRows(mixer)),
    ...onlyOn(
      ["mlp"],
      [
        ...linear(mixer("up_proj"), ["ffn", "hidden"], "mlp.linear_fc1", "mlp_bias"),
        ...linear(mixer("down_proj"), ["hidden", "ffn"], "mlp.linear_fc2", "mlp_bias"),
      ],
    ),
    ...onlyOn(["moe"], moeRows(mixer, expertRows(mixer))),
  ];
}

const mambaHook: HookRow = {
  importance: "mamba",
  accumulator: "decoder.layers.{layer}.mixer.in_proj",
  module: "model.layers.{layer}.mixer.in_proj",
  side: "output",
  reduction: "mean_abs_square",
  axis: IN_PROJ,
  part: X_OF_IN_PROJ,
};

const huggingface: Layout = {
  name: "huggingface",
  tensors: rows("backbone", (mixer) =>
    experts(mixer("experts.{expert}.up_proj.weight"), mixer("experts.{expert}.down_proj.weight"), (io) => ({
      up: ["moe_ffn", io],
      down: [io, "moe_ffn"],
    })),
  ),
};

/** Nemotron-H, Nemotron-Nano-v2 and Nemotron-3: hybrids of Mamba 2, attention, MLPs and experts. */
export const nemotronH: FamilyTable = {
  family: "nemotron_h",
  architectures: ["NemotronHForCausalLM"],
  fields: {
    ...llamaFields,
    num_layers: { key: "num_hidden_layers", absent: { lengthOf: ["layers_block_type", "hybrid_override_pattern"] } },
    ffn_hidden_size: { key: "intermediate_size", absent: 21504 },
    kv_channels: { key: "head_dim", aliases: ["attention_head_dim"], absent: 128 },
    num_moe_experts: { key: "n_routed_experts", aliases: ["num_local_experts"], absent: 8 },
    moe_ffn_hidden_size: { key: "moe_intermediate_size", absent: 7688 },
    moe_shared_expert_intermediate_size: { key: "moe_shared_expert_intermediate_size", absent: 7688 },
    moe_router_topk: { key: "num_experts_per_tok", absent: 2 },
    moe_router_num_groups: { key: "n_group", absent: 1 },
    moe_router_group_topk: { key: "topk_group", absent: 1 },
    moe_latent_size: { key: "moe_latent_size", absent: "none", null: "none" },
    mamba_num_heads: { key: "mamba_num_heads", absent: 128 },
    mamba_head_dim: { key: "mamba_head_dim", absent: 64 },
    mamba_num_groups: { key: "n_groups", aliases: ["mamba_n_groups"], absent: 8 },
    mamba_state_dim: { key: "ssm_state_size", absent: 128 },
    mamba_conv_kernel: { key: "conv_kernel", aliases: ["mamba_d_conv"], absent: 4 },
  },
  flags: {
    mlp_bias: flag("mlp_bias", false),
    mamba_bias: flag("use_bias", false),
    conv_bias: flag("use_conv_bias", true),
    latent: flag("moe_latent_size", false),
  },
  layers: { by: "pattern", keys: ["layers_block_type", "hybrid_override_pattern"], kinds: kindOf },
  layouts: [
    huggingface,
    megatronLayout(huggingface),
    {
      name: "huggingface_packed",
      tensors: rows("model", (mixer) =>
        experts(mixer("experts.up_proj"), mixer("experts.down_proj"), (io) => ({
          up: ["expert", "moe_ffn", io],
          down: ["expert", io, "moe_ffn"],
        })),
      ),
    },
  ],
  live: "huggingface_packed",
  hooks: [
    layerHook,
    ...onlyOn(["mamba"], [normHook("norm", "norm"), mambaHook]),
    ...onlyOn(["attention"], [normHook("input_layernorm", "norm"), attentionHook("mixer.o_proj")]),
    ...onlyOn(["mlp"], [normHook("pre_mlp_layernorm", "norm"), mlpHook("mixer.down_proj")]),
    ...onlyOn(
      ["moe"],
      [normHook("pre_mlp_layernorm", "norm"), ...expertHooks("mixer.experts"), sharedExpertHook("mixer.shared_experts.down_proj")],
    ),
  ],
  perLayerLists: [],
  layerThresholds: [],
  obsolete: [],
  multiTokenPrediction: { prefix: "mtp.", key: "num_nextn_predict_layers" },
};
