import { PruneError } from "../../errors.js";
import type { Hyperparameters, PrunableName } from "../hyperparameters.js";

/** What a search may change, widest steps first in nested loops. Query groups stay: their heads are searched. */
export const SEARCHED = ["num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size"] as const satisfies readonly PrunableName[];

export type SearchedName = (typeof SEARCHED)[number];

/** How the space is laid out, under the reference's names. */
export interface SpaceOptions {
  readonly hidden_size_divisor: number;
  readonly ffn_hidden_size_divisor: number;
  readonly num_layers_divisor: number;
  /** The largest share of a width that may go. */
  readonly max_width_pruning: number;
  /** The largest share of the layers that may go. */
  readonly max_depth_pruning: number;
  /** Hyperparameters that keep the parent's size. */
  readonly hparams_to_skip: readonly string[];
}

/** The reference's defaults. */
export const SPACE_DEFAULTS: SpaceOptions = {
  hidden_size_divisor: 256,
  ffn_hidden_size_divisor: 512,
  num_layers_divisor: 2,
  max_width_pruning: 0.4,
  max_depth_pruning: 0.2,
  hparams_to_skip: [],
};

/** The sizes that each searched hyperparameter can take, ascending, the parent's last. */
export type SearchSpace = Readonly<Record<SearchedName, readonly number[]>>;

/** Lays out the space around a parent. Throws BAD_OPTION on a name that is not searched or a share outside of [0, 1). */
export function searchSpace(parent: Hyperparameters, options: SpaceOptions): SearchSpace {
  const unknown = options.hparams_to_skip.find((name) => !SEARCHED.some((searched) => searched === name));
  if (unknown !== undefined) {
    throw new PruneError("BAD_OPTION", `hparams_to_skip names ${unknown}, which is not searched`, {
      hint: `searched are ${SEARCHED.join(", ")}`,
    });
  }
  for (const name of ["max_width_pruning", "max_depth_pruning"] as const) {
    if (!(options[name] >= 0 && options[name] < 1))
      throw new PruneError("BAD_OPTION", `${name} ${options[name]} is not a share from 0 to below 1`);
  }
  const divisors: Record<SearchedName, number> = {
    num_layers: options.num_layers_divisor,
    hidden_size: options.hidden_size_divisor,
    num_attention_heads: parent.num_query_groups,
    ffn_hidden_size: options.ffn_hidden_size_divisor,
  };
  const choices = (name: SearchedName): number[] => {
    const size = parent[name];
    if (options.hparams_to_skip.includes(name)) return [size];
    const most = name === "num_layers" ? options.max_depth_pruning : options.max_width_pruning;
    return [...multiplesBelow(size, divisors[name], name), size].filter((choice) => choice === size || choice > size * (1 - most));
  };
  return {
    num_layers: choices("num_layers"),
    hidden_size: choices("hidden_size"),
    num_attention_heads: choices("num_attention_heads"),
    ffn_hidden_size: choices("ffn_hidden_size"),
  };
}

/** How many subnets a space has. */
export function spaceSize(space: SearchSpace): number {
  return SEARCHED.reduce((size, name) => size * space[name].length, 1);
}

function multiplesBelow(size: number, divisor: number, name: SearchedName): number[] {
  if (!Number.isInteger(divisor) || divisor < 1)
    throw new PruneError("BAD_OPTION", `the divisor of ${name} is ${divisor}; it must be a positive integer`);
  return Array.from({ length: Math.ceil(size / divisor) - 1 }, (_, i) => (i + 1) * divisor);
}
