import type { HyperparameterName } from "../hyperparameters.js";

/** All that prunebridge knows of one model family in one layout on disk. Adding a family is adding one of these. */
export interface FamilyTable {
  readonly family: string;
  readonly layout: "huggingface";
  /** Values of config.json's `architectures`. */
  readonly architectures: readonly string[];
  /** The config field of each hyperparameter. */
  readonly fields: Readonly<Record<HyperparameterName, ConfigField>>;
  /** Config switches that decide whether rows exist. */
  readonly flags: Readonly<Record<FlagName, FlagField>>;
  readonly tensors: readonly TensorRow[];
  readonly hooks: readonly HookRow[];
  /** Config lists with one entry for each layer. */
  readonly perLayerLists: readonly string[];
  /** Config fields that split the layers at a number: layers below it are of one kind, the rest of another. */
  readonly layerThresholds: readonly string[];
  /** A check of transformers' config class that a legal child can fail: worth a warning, since only that loader minds. */
  readonly loaderDemands?: "hidden_size_multiple_of_heads";
  /** Tensors that old checkpoints carry and that nothing reads: left out of the child. */
  readonly obsolete: readonly string[];
}

/** Where a hyperparameter stands in config.json, and what the family takes where the field is absent or null. */
export interface ConfigField {
  readonly key: string;
  readonly absent?: Fallback;
  readonly null?: Fallback;
}

export type Fallback =
  | number
  | { readonly sameAs: HyperparameterName }
  | { readonly quotient: readonly [HyperparameterName, HyperparameterName] };

export type FlagName = "tied" | "attention_bias" | "mlp_bias";

/** A switch in config.json; a key of null is a constant of the family. */
export interface FlagField {
  readonly key: string | null;
  readonly absent: boolean;
}

/** One tensor of the model, or one of each layer where the name holds `{layer}`. */
export interface TensorRow {
  readonly name: string;
  /** One axis expression for each axis. */
  readonly axes: readonly string[];
  /** The flag without which the tensor does not exist. */
  readonly when?: FlagName;
  /** The tensor that this one shares its storage with when embeddings are tied: then it may be absent, and is not counted. */
  readonly tiedTo?: string;
  /** The forward pass picks rows of it and multiplies by none. */
  readonly lookup?: boolean;
}

/** Which importance a hook point measures. */
export type Importance = "ffn" | "attention" | "hidden" | "layer";

/** One hook point of each layer, and the Megatron-Core name that its accumulator is stored under. */
export interface HookRow {
  readonly importance: Importance;
  readonly accumulator: string;
  readonly module: string;
  readonly side: "input" | "output";
  readonly reduction: "mean_abs_square" | "cosine_distance";
  /** The channels that the accumulator has, as an axis expression; none for a scalar. */
  readonly axis?: string;
}
