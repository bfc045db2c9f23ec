import { PruneError } from "../errors.js";
import type { DimensionSizes } from "./axes/evaluate.js";
import { dimensionsOf, parseAxis } from "./axes/expression.js";
import { findFamily } from "./families/registry.js";
import {
  type ConfigField,
  type Fallback,
  type FamilyTable,
  FLAG_NAMES,
  type FlagField,
  type FlagName,
  type LayerKind,
  type TensorRow,
} from "./families/table.js";
import {
  dimensionSizes,
  HYPERPARAMETERS,
  type HyperparameterName,
  type Hyperparameters,
  LAYER_SIZES,
  type LayerSizes,
  PRUNABLE,
  type PrunableDimension,
} from "./hyperparameters.js";
import { readLayerKinds } from "./layers.js";
import { type Quantization, readQuantization } from "./quantization.js";

/** A config.json, parsed and otherwise untouched. */
export type ModelConfig = Readonly<Record<string, unknown>>;

/** A family's table together with the numbers and switches of one checkpoint. */
export interface Architecture {
  readonly table: FamilyTable;
  readonly hyperparameters: Hyperparameters;
  readonly flags: Readonly<Record<FlagName, boolean>>;
  /** The kind of each layer, in order. */
  readonly layers: readonly LayerKind[];
  readonly sizes: DimensionSizes;
  /** The sizes of each layer, where these differ; `sizes` then has the largest. */
  readonly layerSizes?: readonly LayerSizes[];
  /** How its config says that its checkpoint is quantised. */
  readonly quantization: Quantization | undefined;
}

type Sizes = { -readonly [name in HyperparameterName]?: number };

/** Switches that the config of any family may have. */
const SHARED_FLAGS: Readonly<Partial<Record<FlagName, FlagField>>> = {
  zero_centered_norms: { key: "layernorm_zero_centered_gamma", absent: false },
};

/** Switches that a size switches on by being there. */
const SIZE_FLAGS: readonly FlagName[] = ["latent", "shared_expert"];

// Bounds that no network comes near to: a config that states more is wrong, and must not exhaust memory before that is found.
const MAX_SIZE = 2 ** 24;
const MAX_LAYERS = 10_000;

/**
 * Reads a checkpoint's config through its family's table.
 *
 * @param where - what to call the config in errors
 * @throws PruneError UNKNOWN_ARCHITECTURE, UNSUPPORTED_QUANTIZATION, or BAD_CONFIG where a size is missing, not a positive integer, or stated
 *   twice and differently, heads do not fill their groups, or a router chooses more experts than there are
 */
export function readArchitecture(config: ModelConfig, where = "config.json"): Architecture {
  const table = findFamily(config, where);
  const quantization = readQuantization(config, table, where);
  const flags = readFlags(config, table, where);
  const layers = readLayerKinds(config, table, readSize(config, table, "num_layers", {}, where) ?? 0, where);
  const used = usedHyperparameters(table, flags, layers);
  const read: Sizes = {};
  for (const name of HYPERPARAMETERS) {
    const value = used.has(name) ? readSize(config, table, name, read, where) : undefined;
    if (value !== undefined) read[name] = value;
  }
  const hyperparameters = read as Hyperparameters; // usedHyperparameters has every required one
  checkDivides(table, hyperparameters, "num_attention_heads", "num_query_groups", where);
  checkDivides(table, hyperparameters, "mamba_num_heads", "mamba_num_groups", where);
  checkDivides(table, hyperparameters, "num_moe_experts", "moe_router_num_groups", where);
  checkChosen(table, hyperparameters, "moe_router_topk", "num_moe_experts", where);
  checkChosen(table, hyperparameters, "moe_router_group_topk", "moe_router_num_groups", where);
  return { table, flags, layers, hyperparameters, sizes: dimensionSizes(hyperparameters), quantization };
}

/** The same family and switches with other sizes, and of other layers where their number changes. */
export function withHyperparameters(
  from: Architecture,
  hyperparameters: Hyperparameters,
  layers: readonly LayerKind[] = from.layers.slice(0, hyperparameters.num_layers),
): Architecture {
  return { ...from, layers, hyperparameters, sizes: dimensionSizes(hyperparameters) };
}

/** The same network with layers of sizes of their own. */
export function withLayerSizes(from: Architecture, layerSizes: readonly LayerSizes[]): Architecture {
  const widest = (name: keyof LayerSizes): number => layerSizes.reduce((most, sizes) => Math.max(most, sizes[name]), 0);
  const hyperparameters = { ...from.hyperparameters, ...Object.fromEntries(LAYER_SIZES.map((name) => [name, widest(name)])) };
  return { ...from, hyperparameters, sizes: dimensionSizes(hyperparameters), layerSizes };
}

/** The sizes of dimensions within a layer, or outside of all. */
export function sizesAt({ hyperparameters, sizes, layerSizes }: Architecture, layer: number | undefined): DimensionSizes {
  const own = layer === undefined ? undefined : layerSizes?.[layer];
  return own ? { ...sizes, ...dimensionSizes({ ...hyperparameters, ...own }) } : sizes;
}

/** The layers that have a dimension, by their index. */
export function layersWith(architecture: Architecture, dimension: PrunableDimension): number[] {
  const kinds = kindsWith(architecture, dimension);
  return architecture.layers.flatMap((kind, layer) => (kinds.has(kind) ? [layer] : []));
}

/** Whether a tensor or a hook point exists under some switches. */
export function exists(row: Pick<TensorRow, "when" | "unless">, flags: Architecture["flags"]): boolean {
  const needed = row.when === undefined ? [] : [row.when].flat();
  return needed.every((flag) => flags[flag]) && (row.unless === undefined || !flags[row.unless]);
}

function kindsWith({ table, flags, layers }: Pick<Architecture, "table" | "flags" | "layers">, dimension: string): ReadonlySet<LayerKind> {
  const naming = liveRows(table).filter((row) => exists(row, flags) && row.name.includes("{layer}") && namesOf(row).has(dimension));
  return new Set(layers.filter((kind) => naming.some((row) => row.on?.includes(kind) ?? true)));
}

function liveRows(table: FamilyTable): readonly TensorRow[] {
  return table.layouts.find(({ name }) => name === table.live)?.tensors ?? [];
}

function namesOf(row: TensorRow): ReadonlySet<string> {
  return new Set(row.axes.flatMap((axis) => dimensionsOf(parseAxis(axis))));
}

/** Configs state sizes of blocks that no layer has: those are left out, and cannot be pruned. */
function usedHyperparameters(
  table: FamilyTable,
  flags: Architecture["flags"],
  layers: readonly LayerKind[],
): ReadonlySet<HyperparameterName> {
  const outside = liveRows(table).filter((row) => exists(row, flags) && !row.name.includes("{layer}"));
  const has = (dimension: string): boolean =>
    kindsWith({ table, flags, layers }, dimension).size > 0 || outside.some((row) => namesOf(row).has(dimension));
  const optional: Readonly<Partial<Record<HyperparameterName, string>>> = {
    ...PRUNABLE,
    max_position_embeddings: "position",
    type_vocab_size: "token_type",
    num_labels: "label",
    moe_router_topk: "expert",
    moe_router_num_groups: "expert",
    moe_router_group_topk: "expert",
    moe_latent_size: "moe_latent",
    mamba_num_groups: "mamba_group",
    mamba_state_dim: "mamba_state",
    mamba_conv_kernel: "conv_kernel",
  };
  const required = ["num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "vocab_size"];
  return new Set(HYPERPARAMETERS.filter((name) => required.includes(name) || (table.fields[name] && has(optional[name] ?? ""))));
}

function checkDivides(
  table: FamilyTable,
  sizes: Hyperparameters,
  name: "num_attention_heads" | "mamba_num_heads" | "num_moe_experts",
  groupsName: "num_query_groups" | "mamba_num_groups" | "moe_router_num_groups",
  where: string,
): void {
  const [size, groups] = [sizes[name], sizes[groupsName]];
  if (size === undefined || groups === undefined || size % groups === 0) return;
  throw new PruneError("BAD_CONFIG", `${where}: ${name} ${size} does not divide into ${groups} groups (${groupsName})`, {
    hint: `${table.fields[name]?.key} must be a multiple of ${table.fields[groupsName]?.key}`,
  });
}

/** A router cannot choose more than there are. */
function checkChosen(
  table: FamilyTable,
  sizes: Hyperparameters,
  name: "moe_router_topk" | "moe_router_group_topk",
  ofName: "num_moe_experts" | "moe_router_num_groups",
  where: string,
): void {
  const [chosen, all] = [sizes[name], sizes[ofName]];
  if (chosen === undefined || all === undefined || chosen <= all) return;
  throw new PruneError("BAD_CONFIG", `${where}: ${name} ${chosen} is more than ${ofName} ${all}`, {
    hint: `${table.fields[name]?.key} must be at most ${table.fields[ofName]?.key}`,
  });
}

/** The keys under which a config states a field. */
export function statedKeys(config: ModelConfig, { key, aliases = [] }: ConfigField): string[] {
  return [key, ...aliases].filter((name) => config[name] !== undefined);
}

function readSize(config: ModelConfig, table: FamilyTable, name: HyperparameterName, sofar: Sizes, where: string): number | undefined {
  const field = table.fields[name];
  if (!field) return undefined;
  const [key = field.key, ...others] = statedKeys(config, field);
  const stored = config[key];
  const other = others.find((name) => config[name] !== stored);
  if (other !== undefined) {
    throw new PruneError("BAD_CONFIG", `${where}: ${key} is ${JSON.stringify(stored)} and ${other} is ${JSON.stringify(config[other])}`, {
      hint: `both state ${name}: correct whichever is wrong`,
    });
  }
  const fallback = stored === undefined ? field.absent : stored === null ? field.null : undefined;
  if (fallback === "none") return undefined;
  const value = fallback === undefined ? stored : resolveFallback(config, fallback, sofar);
  const most = name === "num_layers" ? MAX_LAYERS : MAX_SIZE;
  if (typeof value === "number" && Number.isInteger(value) && value > 0 && value <= most) return value;
  const found = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
  const expected = typeof value === "number" && value > most ? `an integer up to ${most}` : "a positive integer";
  throw new PruneError("BAD_CONFIG", `${where}: ${key} ${found}; it must be ${expected} (${name})`);
}

function resolveFallback(config: ModelConfig, fallback: Exclude<Fallback, "none">, sofar: Sizes): number | undefined {
  if (typeof fallback === "number") return fallback;
  if ("sameAs" in fallback) return sofar[fallback.sameAs];
  if ("lengthOf" in fallback) {
    const stated = fallback.lengthOf.map((key) => config[key]).find((value) => typeof value === "string" || isFilled(value));
    return stated === undefined ? fallback.otherwise : Object.keys(stated).length;
  }
  if ("multiple" in fallback) return fallback.multiple * (sofar[fallback.of] ?? Number.NaN);
  const [over, under] = fallback.quotient;
  return Math.floor((sofar[over] ?? Number.NaN) / (sofar[under] ?? Number.NaN));
}

function isFilled(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function readFlags(config: ModelConfig, table: FamilyTable, where: string): Record<FlagName, boolean> {
  const read = (name: FlagName): boolean => {
    const { key, absent, named }: FlagField = table.flags[name] ?? SHARED_FLAGS[name] ?? { key: null, absent: false };
    const stored = key === null ? undefined : config[key];
    if (stored === undefined || stored === null) return absent;
    const on = typeof stored === "string" ? named?.[stored] : undefined;
    if (on !== undefined) return on;
    if (typeof stored === "boolean" && !named) return stored;
    if (SIZE_FLAGS.includes(name) && typeof stored === "number") return true;
    const legal = named ? Object.keys(named).join(" or ") : "true or false";
    throw new PruneError("BAD_CONFIG", `${where}: ${key} is ${JSON.stringify(stored)}; it must be ${legal}`);
  };
  return Object.fromEntries(FLAG_NAMES.map((name) => [name, read(name)])) as Record<FlagName, boolean>; // FLAG_NAMES has every flag
}
