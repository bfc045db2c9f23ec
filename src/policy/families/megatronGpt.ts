import { flag, MEGATRON_LAYER, onlyOn, QUERY } from "./blocks.js";
import { otherSpellings, PADDED_VOCABULARY } from "./megatron.js";
import type { FamilyTable, FlagName, HookRow, TensorRow } from "./table.js";

const ATTENTION = `${MEGATRON_LAYER}.self_attention`;
const QKV = "group * (heads_of_group * head_dim + head_dim + head_dim)";

type Options = Omit<TensorRow, "name" | "axes">;

function row(name: string, axes: readonly string[], options: Options = {}): TensorRow {
  const aliases = otherSpellings(name);
  return { name, axes, ...options, ...(aliases.length > 0 && { aliases }) };
}

/** A norm has a bias where it is no RMSNorm. */
function norm(module: string, channels: string, when: readonly FlagName[] = []): TensorRow[] {
  return [row(`${module}.weight`, [channels], { when }), row(`${module}.bias`, [channels], { when: [...when, "norm_bias"] })];
}

/** Two projections around an activation; with a gate, the gate's rows lie above those that it gates. */
function feedForward(module: string, channels: string, options: { bias: boolean } & Options): TensorRow[] {
  const { bias, when = [], ...shared } = options;
  const needed = [when].flat();
  const first = (part: string, inner: readonly string[], flags: readonly FlagName[]): TensorRow[] => [
    row(`${module}.linear_fc1.${part}`, [`${channels} + ${channels}`, ...inner], { ...shared, when: [...flags, "gated"] }),
    row(`${module}.linear_fc1.${part}`, [channels, ...inner], { ...shared, when: flags, unless: "gated" }),
  ];
  return [
    ...first("weight", ["hidden"], needed),
    row(`${module}.linear_fc2.weight`, ["hidden", channels], { ...shared, when: needed }),
    ...(bias
      ? [
          ...first("bias", [], [...needed, "mlp_bias"]),
          row(`${module}.linear_fc2.bias`, ["hidden"], { ...shared, when: [...needed, "mlp_bias"] }),
        ]
      : []),
  ];
}

const tensors: readonly TensorRow[] = [
  row("embedding.word_embeddings.weight", [PADDED_VOCABULARY, "hidden"], { use: "lookup" }),
  row("embedding.position_embeddings.weight", ["position", "hidden"], { use: "lookup", when: "learned_positions" }),
  row("output_layer.weight", [PADDED_VOCABULARY, "hidden"], { tiedTo: "embedding.word_embeddings.weight" }),
  ...norm("decoder.final_layernorm", "hidden"),
  ...norm(`${MEGATRON_LAYER}.input_layernorm`, "hidden"),
  ...norm(`${MEGATRON_LAYER}.pre_mlp_layernorm`, "hidden"),
  row(`${ATTENTION}.linear_qkv.weight`, [QKV, "hidden"]),
  row(`${ATTENTION}.linear_qkv.bias`, [QKV], { when: "mlp_bias" }),
  row(`${ATTENTION}.linear_qkv.bias`, [QKV], { when: "attention_bias", unless: "mlp_bias" }),
  row(`${ATTENTION}.linear_proj.weight`, ["hidden", QUERY]),
  row(`${ATTENTION}.linear_proj.bias`, ["hidden"], { when: "mlp_bias" }),
  ...norm(`${ATTENTION}.q_layernorm`, "head_dim", ["qk_norm"]),
  ...norm(`${ATTENTION}.k_layernorm`, "head_dim", ["qk_norm"]),
  ...onlyOn(["dense"], feedForward(`${MEGATRON_LAYER}.mlp`, "ffn", { bias: true })),
  ...onlyOn(
    ["sparse"],
    [
      row(`${MEGATRON_LAYER}.mlp.router.weight`, ["expert", "hidden"]),
      row(`${MEGATRON_LAYER}.mlp.router.expert_bias`, ["expert"], { use: "buffer", when: "expert_bias" }),
      ...feedForward(`${MEGATRON_LAYER}.mlp.experts.local_experts.{expert}`, "moe_ffn", { bias: true, routed: true }),
      ...feedForward(`${MEGATRON_LAYER}.mlp.shared_experts`, "moe_shared_ffn", { bias: false, when: "shared_expert" }),
      row(`${MEGATRON_LAYER}.mlp.shared_experts.gate_weight`, ["1", "hidden"], { when: ["shared_expert", "shared_expert_gate"] }),
    ],
  ),
];

const at = { side: "input", reduction: "mean_abs_square" } as const;
const EXPERTS = `${MEGATRON_LAYER}.mlp.experts`;

function measured(importance: HookRow["importance"], module: string, axis: string, projection = ""): HookRow {
  return { ...at, importance, accumulator: `${MEGATRON_LAYER}.${module}`, module: `${MEGATRON_LAYER}.${module}${projection}`, axis };
}

function routed(importance: HookRow["importance"], accumulator: string, reduction: HookRow["reduction"], axis: string): HookRow {
  return { importance, accumulator: `${EXPERTS}.${accumulator}`, module: EXPERTS, side: "input", reduction, axis };
}

const hooks: readonly HookRow[] = [
  measured("attention", "self_attention", QUERY, ".linear_proj"),
  { ...measured("hidden", "input_layernorm", "hidden"), side: "output" },
  { ...measured("hidden", "pre_mlp_layernorm", "hidden"), side: "output" },
  { importance: "layer", accumulator: MEGATRON_LAYER, module: MEGATRON_LAYER, side: "output", reduction: "cosine_distance" },
  ...onlyOn(["dense"], [measured("ffn", "mlp", "ffn", ".linear_fc2")]),
  ...onlyOn(
    ["sparse"],
    [
      routed("moe_ffn", "local_experts.{expert}", "routed_mean_abs_square", "moe_ffn"),
      routed("expert_norm", "expert_l2_scores", "routed_output_norm", "expert"),
      routed("expert_tokens", "expert_sample_counts", "routed_tokens", "expert"),
      { ...measured("moe_shared_ffn", "mlp.shared_experts", "moe_shared_ffn", ".linear_fc2"), when: "shared_expert" },
    ],
  ),
];

/** Megatron-Core's GPTModel under its own names, dense or with experts: what Megatron-LM, Megatron-Bridge and NeMo save. */
export const megatronGpt: FamilyTable = {
  family: "megatron_gpt",
  architectures: ["GPTModel"],
  fields: {
    num_layers: { key: "num_layers" },
    hidden_size: { key: "hidden_size" },
    ffn_hidden_size: { key: "ffn_hidden_size" },
    num_attention_heads: { key: "num_attention_heads" },
    num_query_groups: { key: "num_query_groups", absent: { sameAs: "num_attention_heads" } },
    kv_channels: { key: "kv_channels", absent: { quotient: ["hidden_size", "num_attention_heads"] } },
    vocab_size: { key: "vocab_size" },
    max_position_embeddings: { key: "max_position_embeddings" },
    num_moe_experts: { key: "num_moe_experts" },
    moe_ffn_hidden_size: { key: "moe_ffn_hidden_size" },
    moe_shared_expert_intermediate_size: { key: "moe_shared_expert_intermediate_size" },
    moe_router_topk: { key: "moe_router_topk", absent: 2 },
    moe_router_num_groups: { key: "moe_router_num_groups", absent: "none" },
    moe_router_group_topk: { key: "moe_router_group_topk", absent: "none" },
  },
  // What Megatron-Core takes where a field is absent.
  flags: {
    tied: flag("share_embeddings_and_output_weights", false),
    attention_bias: flag("add_qkv_bias", false),
    mlp_bias: flag("add_bias_linear", true),
    gated: flag("gated_linear_unit", false),
    qk_norm: flag("qk_layernorm", false),
    norm_bias: { key: "normalization", absent: true, named: { LayerNorm: true, RMSNorm: false } },
    learned_positions: {
      key: "position_embedding_type",
      absent: true,
      named: { learned_absolute: true, rope: false, yarn: false, mrope: false, none: false },
    },
    shared_expert: flag("moe_shared_expert_intermediate_size", false),
    shared_expert_gate: flag("moe_shared_expert_gate", false),
    expert_bias: flag("moe_router_enable_expert_bias", false),
  },
  layers: { by: "moe_frequency", frequency: "moe_layer_freq", experts: "num_moe_experts" },
  layouts: [{ name: "megatron", tensors }],
  live: "megatron",
  hooks,
  perLayerLists: [],
  layerThresholds: [],
  obsolete: [],
  multiTokenPrediction: { prefix: "mtp.", key: "mtp_num_layers" },
};
