import { PruneError } from "../errors.js";
import type { DimensionSizes } from "./axes/evaluate.js";
import { findFamily } from "./families/registry.js";
import type { Fallback, FamilyTable, FlagName } from "./families/table.js";
import { dimensionSizes, type HyperparameterName, type Hyperparameters } from "./hyperparameters.js";

/** A config.json, parsed and otherwise untouched. */
export type ModelConfig = Readonly<Record<string, unknown>>;

/** A family's table together with the numbers and switches of one checkpoint. */
export interface Architecture {
  readonly table: FamilyTable;
  readonly hyperparameters: Hyperparameters;
  readonly flags: Readonly<Record<FlagName, boolean>>;
  readonly sizes: DimensionSizes;
}

// Fallbacks refer to fields before them.
const READING_ORDER = [
  "num_layers",
  "hidden_size",
  "ffn_hidden_size",
  "num_attention_heads",
  "num_query_groups",
  "kv_channels",
  "vocab_size",
] as const satisfies readonly HyperparameterName[];

/**
 * Reads a checkpoint's config through its family's table.
 *
 * @param where - what to call the config in errors
 * @throws PruneError UNKNOWN_ARCHITECTURE, or BAD_CONFIG where a size is missing, not a positive integer, or heads do not fill their groups
 */
export function readArchitecture(config: ModelConfig, where = "config.json"): Architecture {
  const table = findFamily(config, where);
  const read: Partial<Record<HyperparameterName, number>> = {};
  for (const name of READING_ORDER) read[name] = readSize(config, table, name, read, where);
  const hyperparameters = read as Hyperparameters; // READING_ORDER names every field
  const { num_attention_heads: heads, num_query_groups: groups } = hyperparameters;
  if (heads % groups !== 0) {
    throw new PruneError("BAD_CONFIG", `${where}: ${heads} attention heads do not divide into ${groups} query groups`, {
      hint: `num_attention_heads must be a multiple of ${table.fields.num_query_groups.key}`,
    });
  }
  return withHyperparameters({ table, flags: readFlags(config, table, where) }, hyperparameters);
}

/** The same family and switches with other sizes. */
export function withHyperparameters(from: Pick<Architecture, "table" | "flags">, hyperparameters: Hyperparameters): Architecture {
  return { table: from.table, flags: from.flags, hyperparameters, sizes: dimensionSizes(hyperparameters) };
}

function readSize(
  config: ModelConfig,
  table: FamilyTable,
  name: HyperparameterName,
  sofar: Partial<Record<HyperparameterName, number>>,
  where: string,
): number {
  const field = table.fields[name];
  const stored = config[field.key];
  const fallback = stored === undefined ? field.absent : stored === null ? field.null : undefined;
  const value = fallback === undefined ? stored : resolveFallback(fallback, sofar);
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  const found = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
  throw new PruneError("BAD_CONFIG", `${where}: ${field.key} ${found}; it must be a positive integer (${name})`);
}

function resolveFallback(fallback: Fallback, sofar: Partial<Record<HyperparameterName, number>>): number | undefined {
  if (typeof fallback === "number") return fallback;
  if ("sameAs" in fallback) return sofar[fallback.sameAs];
  const [over, under] = fallback.quotient;
  return Math.floor((sofar[over] ?? Number.NaN) / (sofar[under] ?? Number.NaN));
}

function readFlags(config: ModelConfig, table: FamilyTable, where: string): Record<FlagName, boolean> {
  const read = (name: FlagName): boolean => {
    const { key, absent } = table.flags[name];
    const stored = key === null ? undefined : config[key];
    if (stored === undefined || stored === null) return absent;
    if (typeof stored === "boolean") return stored;
    throw new PruneError("BAD_CONFIG", `${where}: ${key} is ${JSON.stringify(stored)}; it must be true or false`);
  };
  return { tied: read("tied"), attention_bias: read("attention_bias"), mlp_bias: read("mlp_bias") };
}
