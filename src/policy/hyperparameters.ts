import type { DimensionSizes } from "./axes/evaluate.js";

/** The sizes of a decoder, under Megatron's names. What the network has none of is left out. */
export interface Hyperparameters {
  readonly num_layers: number;
  readonly hidden_size: number;
  readonly num_attention_heads: number;
  readonly num_query_groups: number;
  /** Channels of one head (head_dim); pruning never changes it. */
  readonly kv_channels: number;
  readonly vocab_size: number;
  /** Positions that the embedding has learned. */
  readonly max_position_embeddings?: number;
  /** Kinds of segment that tokens belong to. */
  readonly type_vocab_size?: number;
  /** Classes that the head of a classifier tells apart. */
  readonly num_labels?: number;
  readonly ffn_hidden_size?: number;
  readonly num_moe_experts?: number;
  readonly moe_ffn_hidden_size?: number;
  readonly moe_shared_expert_intermediate_size?: number;
  /** Experts that a token passes. */
  readonly moe_router_topk?: number;
  /** Groups of experts that the router chooses among first, and how many of them a token may use. */
  readonly moe_router_num_groups?: number;
  readonly moe_router_group_topk?: number;
  /** Channels that experts read and write, where these are not the hidden ones. */
  readonly moe_latent_size?: number;
  readonly mamba_num_heads?: number;
  readonly mamba_head_dim?: number;
  /** Groups of heads that share B and C. */
  readonly mamba_num_groups?: number;
  readonly mamba_state_dim?: number;
  readonly mamba_conv_kernel?: number;
}

export type HyperparameterName = keyof Hyperparameters;

/** Every hyperparameter. Config fields may refer to those before them. */
export const HYPERPARAMETERS = [
  "num_layers",
  "hidden_size",
  "ffn_hidden_size",
  "num_attention_heads",
  "num_query_groups",
  "kv_channels",
  "vocab_size",
  "max_position_embeddings",
  "type_vocab_size",
  "num_labels",
  "num_moe_experts",
  "moe_ffn_hidden_size",
  "moe_shared_expert_intermediate_size",
  "moe_router_topk",
  "moe_router_num_groups",
  "moe_router_group_topk",
  "moe_latent_size",
  "mamba_num_heads",
  "mamba_head_dim",
  "mamba_num_groups",
  "mamba_state_dim",
  "mamba_conv_kernel",
] as const satisfies readonly HyperparameterName[];

/** What every decoder has. */
export type RequiredName = "num_layers" | "hidden_size" | "num_attention_heads" | "num_query_groups" | "kv_channels" | "vocab_size";

/** What `export_config` may name, in the order in which reports list it, and the dimension that it is the size of. */
export const PRUNABLE = {
  num_layers: "layer",
  hidden_size: "hidden",
  ffn_hidden_size: "ffn",
  num_attention_heads: "heads_of_group",
  num_query_groups: "group",
  num_moe_experts: "expert",
  moe_ffn_hidden_size: "moe_ffn",
  moe_shared_expert_intermediate_size: "moe_shared_ffn",
  mamba_num_heads: "mamba_heads_of_group",
  mamba_head_dim: "mamba_head_dim",
} as const satisfies Partial<Record<HyperparameterName, string>>;

export type PrunableName = keyof typeof PRUNABLE;

/** The names of {@link PRUNABLE}, in order. */
export const PRUNABLE_NAMES = Object.keys(PRUNABLE) as readonly PrunableName[];

/** What can be pruned of a network, in the order in which reports list it. */
export function prunableNames(sizes: Hyperparameters): PrunableName[] {
  return PRUNABLE_NAMES.filter((name) => sizes[name] !== undefined);
}

/** What layers may each have a size of their own in. */
export const LAYER_SIZES = ["ffn_hidden_size", "num_attention_heads", "num_query_groups"] as const satisfies readonly PrunableName[];

/** Sizes of one layer. */
export type LayerSizes = Readonly<Record<(typeof LAYER_SIZES)[number], number>>;

/** The dimensions within which each prunable dimension keeps a set of its own: every layer ranks its own FFN channels, for one. */
export const DIMENSION_SCOPES = {
  layer: [],
  hidden: [],
  ffn: ["layer"],
  group: ["layer"],
  heads_of_group: ["layer", "group"],
  expert: ["layer"],
  moe_ffn: ["layer", "expert"],
  moe_shared_ffn: ["layer"],
  mamba_heads_of_group: ["layer", "mamba_group"],
  mamba_head_dim: ["layer"],
} as const satisfies Readonly<Record<(typeof PRUNABLE)[PrunableName], readonly string[]>>;

export type PrunableDimension = keyof typeof DIMENSION_SCOPES;

/** The dimensions that axis expressions name, and the hyperparameters that each comes from. */
export function dimensionSizes(sizes: Hyperparameters): DimensionSizes {
  const all = {
    layer: sizes.num_layers,
    hidden: sizes.hidden_size,
    ffn: sizes.ffn_hidden_size,
    group: sizes.num_query_groups,
    heads_of_group: sizes.num_attention_heads / sizes.num_query_groups,
    head_dim: sizes.kv_channels,
    vocab: sizes.vocab_size,
    vocab_padding: 0,
    position: sizes.max_position_embeddings,
    token_type: sizes.type_vocab_size,
    label: sizes.num_labels,
    expert: sizes.num_moe_experts,
    moe_ffn: sizes.moe_ffn_hidden_size,
    moe_shared_ffn: sizes.moe_shared_expert_intermediate_size,
    moe_latent: sizes.moe_latent_size,
    mamba_group: sizes.mamba_num_groups,
    mamba_heads_of_group: quotient(sizes.mamba_num_heads, sizes.mamba_num_groups),
    mamba_head_dim: sizes.mamba_head_dim,
    mamba_state: sizes.mamba_state_dim,
    conv_kernel: sizes.mamba_conv_kernel,
  };
  const present = Object.entries(all).filter((entry): entry is [string, number] => entry[1] !== undefined);
  return Object.fromEntries(present);
}

function quotient(over: number | undefined, under: number | undefined): number | undefined {
  return over === undefined || under === undefined ? undefined : over / under;
}

/** The fewest experts with which a router finds as many as a token passes. Within groups, it rates a group by its two best experts. */
export function fewestExperts(sizes: Hyperparameters): number {
  const { moe_router_topk: topk = 1, moe_router_num_groups: groups = 1, moe_router_group_topk: groupTopk = 1 } = sizes;
  return groups > 1 ? groups * Math.max(2, Math.ceil(topk / groupTopk)) : topk;
}

/** How many positions are ranked where every dimension is pruned. */
export function countRanked(sizes: DimensionSizes): number {
  const within = (scopes: readonly string[]): number => scopes.reduce((product, scope) => product * (sizes[scope] ?? 1), 1);
  return Object.entries(DIMENSION_SCOPES).reduce((sum, [dimension, scopes]) => sum + (sizes[dimension] ?? 0) * within(scopes), 0);
}
