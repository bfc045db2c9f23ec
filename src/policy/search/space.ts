import { PruneError } from "../../errors.js";
import { fewestExperts, type Hyperparameters, type PrunableName, type RequiredName } from "../hyperparameters.js";

/** What a search may change, widest steps first. Query groups stay: their heads are searched. */
export const SEARCHED = [
  "num_layers",
  "hidden_size",
  "num_attention_heads",
  "mamba_num_heads",
  "mamba_head_dim",
  "num_moe_experts",
  "moe_ffn_hidden_size",
  "moe_shared_expert_intermediate_size",
  "ffn_hidden_size",
] as const satisfies readonly PrunableName[];

export type SearchedName = (typeof SEARCHED)[number];

/** How the space is laid out: steps under the reference's names, and what the options of a search say. */
export interface SpaceOptions {
  readonly hidden_size_divisor: number;
  /** Also of the widths of routed and shared experts. */
  readonly ffn_hidden_size_divisor: number;
  readonly mamba_head_dim_divisor: number;
  readonly num_moe_experts_divisor: number;
  readonly num_layers_divisor: number;
  /** The largest share of a width that may go. */
  readonly maxWidthPruning: number;
  /** The largest share of the layers that may go. */
  readonly maxDepthPruning: number;
  /** Hyperparameters that keep the parent's size. */
  readonly hparamsToSkip: readonly string[];
}

/** The reference's defaults. */
export const SPACE_DEFAULTS: SpaceOptions = {
  hidden_size_divisor: 256,
  ffn_hidden_size_divisor: 512,
  mamba_head_dim_divisor: 8,
  num_moe_experts_divisor: 8,
  num_layers_divisor: 2,
  maxWidthPruning: 0.4,
  maxDepthPruning: 0.2,
  hparamsToSkip: [],
};

/** The sizes that each searched hyperparameter can take, ascending, the parent's last; of those that the network has. */
export type SearchSpace = Readonly<BySearchedName<readonly number[]>>;

/** Something for each hyperparameter that is searched; not every network has all of them. */
export type BySearchedName<T> = Record<SearchedName & RequiredName, T> & { [name in SearchedName]?: T };

/** Lays out the space around a parent. Throws BAD_OPTION on a name that is not searched. */
export function searchSpace(parent: Hyperparameters, options: SpaceOptions): SearchSpace {
  const unknown = options.hparamsToSkip.find((name) => !SEARCHED.some((searched) => searched === name));
  if (unknown !== undefined) {
    throw new PruneError("BAD_OPTION", `hparamsToSkip names ${unknown}, which is not searched`, {
      hint: `searched are ${SEARCHED.filter((name) => parent[name] !== undefined).join(", ")}`,
    });
  }
  const space: { [name in SearchedName]?: readonly number[] } = {};
  for (const name of SEARCHED) {
    const size = parent[name];
    if (size !== undefined) space[name] = choices(name, size, parent, options);
  }
  return space as SearchSpace; // every network has the required ones
}

/** How many subnets a space has. */
export function spaceSize(space: SearchSpace): number {
  return Object.values(space).reduce((size, sizes) => size * sizes.length, 1);
}

function choices(name: SearchedName, size: number, parent: Hyperparameters, options: SpaceOptions): number[] {
  if (options.hparamsToSkip.includes(name)) return [size];
  const most = name === "num_layers" ? options.maxDepthPruning : options.maxWidthPruning;
  return [...multiplesBelow(size, divisorOf(name, parent, options)), size].filter(
    (choice) => choice === size || (choice > size * (1 - most) && isLegal(name, choice, parent)),
  );
}

function divisorOf(name: SearchedName, parent: Hyperparameters, options: SpaceOptions): number {
  switch (name) {
    case "num_layers":
      return options.num_layers_divisor;
    case "hidden_size":
      return options.hidden_size_divisor;
    case "num_attention_heads":
      return parent.num_query_groups;
    case "mamba_num_heads":
      return parent.mamba_num_groups ?? 1;
    case "mamba_head_dim":
      return options.mamba_head_dim_divisor;
    case "num_moe_experts":
      return options.num_moe_experts_divisor;
    case "ffn_hidden_size":
    case "moe_ffn_hidden_size":
    case "moe_shared_expert_intermediate_size":
      return options.ffn_hidden_size_divisor;
  }
}

/** Whether the router works with as many experts. */
function isLegal(name: SearchedName, size: number, parent: Hyperparameters): boolean {
  if (name !== "num_moe_experts") return true;
  return size >= fewestExperts(parent) && size % (parent.moe_router_num_groups ?? 1) === 0;
}

function multiplesBelow(size: number, divisor: number): number[] {
  return Array.from({ length: Math.ceil(size / divisor) - 1 }, (_, i) => (i + 1) * divisor);
}
