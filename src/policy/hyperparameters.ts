import type { DimensionSizes } from "./axes/evaluate.js";

/** The sizes of a decoder, under Megatron's names. */
export interface Hyperparameters {
  readonly num_layers: number;
  readonly hidden_size: number;
  readonly ffn_hidden_size: number;
  readonly num_attention_heads: number;
  readonly num_query_groups: number;
  /** Channels of one head (head_dim); pruning never changes it. */
  readonly kv_channels: number;
  readonly vocab_size: number;
}

export type HyperparameterName = keyof Hyperparameters;

/** What `export_config` may name, in the order in which reports list it. */
export const PRUNABLE = [
  "num_layers",
  "hidden_size",
  "ffn_hidden_size",
  "num_attention_heads",
  "num_query_groups",
] as const satisfies readonly HyperparameterName[];

export type PrunableName = (typeof PRUNABLE)[number];

/** The dimensions that axis expressions name, and the hyperparameter that each comes from. */
export function dimensionSizes(sizes: Hyperparameters): DimensionSizes {
  return {
    layer: sizes.num_layers,
    hidden: sizes.hidden_size,
    ffn: sizes.ffn_hidden_size,
    group: sizes.num_query_groups,
    heads_of_group: sizes.num_attention_heads / sizes.num_query_groups,
    head_dim: sizes.kv_channels,
    vocab: sizes.vocab_size,
  };
}

/** The dimensions within which each prunable dimension keeps a set of its own: every layer ranks its own FFN channels, for one. */
export const DIMENSION_SCOPES = {
  layer: [],
  hidden: [],
  ffn: ["layer"],
  group: ["layer"],
  heads_of_group: ["layer", "group"],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type PrunableDimension = keyof typeof DIMENSION_SCOPES;
