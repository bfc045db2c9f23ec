import type { HyperparameterName, RequiredName } from "../hyperparameters.js";

/** All that prunebridge knows of one model family. Adding a family is adding one of these. */
export interface FamilyTable {
  readonly family: string;
  /** Values of config.json's `architectures`. */
  readonly architectures: readonly string[];
  /** The config field of each hyperparameter that the family has. */
  readonly fields: Readonly<Record<RequiredName, ConfigField> & Partial<Record<HyperparameterName, ConfigField>>>;
  /** Config switches that decide whether rows exist; a switch that is not named is off. */
  readonly flags: Readonly<Partial<Record<FlagName, FlagField>>>;
  /** What kind each layer is of. */
  readonly layers: LayerRule;
  /** The forms in which checkpoints of the family are stored. */
  readonly layouts: readonly Layout[];
  /** The layout whose names and shapes transformers' own modules have. */
  readonly live: LayoutName;
  readonly hooks: readonly HookRow[];
  /** What masks of units stand on, where gradients of these can tell what to prune. */
  readonly masks?: Masks;
  /** Config lists with one entry for each layer. */
  readonly perLayerLists: readonly LayerList[];
  /** Config fields that split the layers at a number: layers below it are of one kind, the rest of another. */
  readonly layerThresholds: readonly string[];
  /** A check of transformers' config class that a legal child can fail: worth a warning, since only that loader minds. */
  readonly loaderDemands?: "hidden_size_multiple_of_heads";
  /** Heads have hidden_size / heads channels, whatever a config states: children have to keep to that. */
  readonly impliedHeadDim?: true;
  /** The forward pass multiplies embeddings by the square root of hidden_size, which pruning changes: worth a warning. */
  readonly scalesEmbeddings?: boolean;
  /** Tensors that old checkpoints carry and that nothing reads: left out of the child. */
  readonly obsolete: readonly string[];
  /** Checkpoints may hold the matrices of experts in MXFP4, and then transposed against their rows: inputs last, in blocks. */
  readonly mxfp4?: true;
  /** Heads for several tokens ahead, which cannot be pruned with the model: left out of the child, with a warning. */
  readonly multiTokenPrediction?: { readonly prefix: string; readonly key: string };
}

/**
 * How weights are stored: as Hugging Face hubs have them, with all experts of a layer in one tensor, as transformers 5 holds them, or as
 * Megatron-Core names and joins them.
 */
export type LayoutName = (typeof LAYOUT_NAMES)[number];

/** Every {@link LayoutName}. */
export const LAYOUT_NAMES = ["huggingface", "huggingface_packed", "megatron"] as const;

export interface Layout {
  readonly name: LayoutName;
  readonly tensors: readonly TensorRow[];
}

/** Where a hyperparameter stands in config.json, and what the family takes where the field is absent or null. */
export interface ConfigField {
  readonly key: string;
  /** Other spellings of the field. A config that states several has to state the same. */
  readonly aliases?: readonly string[];
  readonly absent?: Fallback;
  readonly null?: Fallback;
}

export type Fallback =
  | number
  | "none"
  | { readonly sameAs: HyperparameterName }
  | { readonly quotient: readonly [HyperparameterName, HyperparameterName] }
  | { readonly multiple: number; readonly of: HyperparameterName }
  | { readonly lengthOf: readonly string[]; readonly otherwise?: number };

/** Every switch that rows may depend on. */
export const FLAG_NAMES = [
  "tied",
  "attention_bias",
  "mlp_bias",
  "latent",
  "mamba_bias",
  "conv_bias",
  "gated",
  "norm_bias",
  "qk_norm",
  "learned_positions",
  "shared_expert",
  "shared_expert_gate",
  "expert_bias",
  "zero_centered_norms",
] as const;

export type FlagName = (typeof FLAG_NAMES)[number];

/** A switch in config.json, on where the field is true or a number; a key of null is a constant of the family. */
export interface FlagField {
  readonly key: string | null;
  readonly absent: boolean;
  /** Where the field is a name: whether each of them switches it on. */
  readonly named?: Readonly<Record<string, boolean>>;
}

/** What a layer is made of. A decoder layer has attention and an MLP, dense or sparse (experts); a hybrid's layer is one block. */
export type LayerKind = "decoder" | "dense" | "sparse" | "mamba" | "attention" | "mlp" | "moe";

/** Where config.json says what kind each layer is of. */
export type LayerRule =
  | { readonly by: "uniform" }
  /** Sparse every `step` layers, but for those that the list `dense` names by their index. */
  | { readonly by: "sparse_step"; readonly dense: string; readonly step: string }
  /** Sparse every `frequency` layers, the first one too, or a list of 1 for sparse and 0 for dense; all dense without `experts`. */
  | { readonly by: "moe_frequency"; readonly frequency: string; readonly experts: string }
  /** A list of names, or a text with one character for each layer. */
  | { readonly by: "pattern"; readonly keys: readonly string[]; readonly kinds: Readonly<Record<string, LayerKind>> };

/** A list in config.json with one entry for each layer; `absent` is what its lack stands for where layers are not all alike. */
export interface LayerList {
  readonly key: string;
  readonly absent?: ImpliedList;
  /** What a number may stand in the list's place for. */
  readonly frequency?: Frequency;
}

/** Of every so many layers, as a number says, the first or the last one is of the second of two values. */
export interface Frequency {
  readonly values: readonly [number, number];
  readonly at: "first" | "last";
}

/** Every `period`-th layer is of the second of two values, and so are those from the threshold on. */
export interface ImpliedList {
  readonly values: readonly [string, string];
  readonly period: number;
  /** A config field that states another period. */
  readonly periodKey?: string;
  readonly thresholdKey?: string;
  /** A switch in config.json without which all layers are alike. */
  readonly when?: string;
}

/** One tensor of the model, or one of each layer (and expert) where the name holds `{layer}` (and `{expert}`). */
export interface TensorRow {
  readonly name: string;
  /** Other names that some checkpoints have it under. */
  readonly aliases?: readonly string[];
  /** Where Megatron-Core has it, if need be by the layer's kind. Several rows of one place are joined there, in their order. */
  readonly megatron?: string | Readonly<Partial<Record<LayerKind, string>>>;
  /** In Megatron-Core's layout: the rows of the layout that it was made from. */
  readonly of?: readonly string[];
  /**
   * The number around which Hugging Face's layouts hold the weights of a norm. Megatron-Core's holds them around one, and around zero where
   * layernorm_zero_centered_gamma is set.
   */
  readonly centre?: 0 | 1;
  /** One axis expression for each axis. */
  readonly axes: readonly string[];
  /** The kinds of layer that have it. Default: all. */
  readonly on?: readonly LayerKind[];
  /** The flag without which the tensor does not exist, or several. */
  readonly when?: FlagName | readonly FlagName[];
  /** The flag with which the tensor does not exist. */
  readonly unless?: FlagName;
  /** The tensor that this one shares its storage with when embeddings are tied: then it may be absent, and is not counted. */
  readonly tiedTo?: string;
  /** What the forward pass does with it, where that is not to multiply by it: pick rows, add it, or route by it. */
  readonly use?: "lookup" | "bias" | "buffer";
  /** Belongs to experts, of which a token passes only the top k. */
  readonly routed?: boolean;
  /** Of each sequence, only one token passes it. */
  readonly oncePerSequence?: true;
}

/** Where units of each layer are masked: channels of the feed-forward block, and heads. */
export interface Masks {
  readonly ffn: MaskRow;
  readonly heads: MaskRow;
}

/** A mask of each layer, and how modules count its units. */
export interface MaskRow {
  /** The module and the attribute of it that the hyperparameter is named by. */
  readonly name: string;
  readonly module: string;
  readonly side: "input" | "output";
  /** Attributes that count units, besides those of linear layers, by their module: axis expressions. */
  readonly attributes: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** Which importance a hook point measures. */
export type Importance =
  | "ffn"
  | "attention"
  | "hidden"
  | "layer"
  | "moe_ffn"
  | "expert_norm"
  | "expert_tokens"
  | "moe_shared_ffn"
  | "mamba";

/** A reduction of the contract's closed list. */
export type ReductionName = "mean_abs_square" | "cosine_distance" | "routed_mean_abs_square" | "routed_output_norm" | "routed_tokens";

/** One hook point of each layer of some kinds, and the Megatron-Core name that its accumulator is stored under. */
export interface HookRow {
  readonly importance: Importance;
  /** With `{expert}` where the accumulator's first axis is split into one for each expert. */
  readonly accumulator: string;
  readonly module: string;
  readonly side: "input" | "output";
  readonly reduction: ReductionName;
  /** The channels that the accumulator has, as an axis expression; none for a scalar. */
  readonly axis?: string;
  /** Of an axis that is a concatenation, the part that is the importance. Default: the whole axis. */
  readonly part?: number;
  /** The kinds of layer that have it. Default: all. */
  readonly on?: readonly LayerKind[];
  /** The switch that it exists under. Default: always. */
  readonly when?: FlagName;
}
