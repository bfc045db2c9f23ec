import { PruneError } from "../errors.js";
import { type Hyperparameters, PRUNABLE, type PrunableName } from "./hyperparameters.js";
import { suggestName } from "./nearest.js";

/** Target sizes by Megatron's names; what is not named stays as it is. */
export type ExportConfig = Readonly<Partial<Record<PrunableName, number>>>;

/** A legal target: the child's sizes, and what deserves a word of warning. */
export interface ResolvedExport {
  readonly exportConfig: ExportConfig;
  readonly hyperparameters: Hyperparameters;
  readonly warnings: readonly string[];
}

// Tensor cores work on tiles of 64 elements.
const WIDTH_MULTIPLE = 64;

/**
 * Checks target sizes against the parent's.
 *
 * @param given - an untrusted value: from JSON, a script, a plan file
 * @throws PruneError BAD_EXPORT_CONFIG that names the hyperparameter and its legal values
 */
export function resolveExportConfig(given: unknown, parent: Hyperparameters): ResolvedExport {
  const exportConfig = parseExportConfig(given, parent);
  const { heads, groups } = resolveAttention(exportConfig, parent);
  const hyperparameters: Hyperparameters = { ...parent, ...exportConfig, num_attention_heads: heads, num_query_groups: groups };
  return { exportConfig, hyperparameters, warnings: widthWarnings(exportConfig) };
}

function parseExportConfig(given: unknown, parent: Hyperparameters): ExportConfig {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw bad(`export_config must be an object such as {"ffn_hidden_size": 9216}, not ${JSON.stringify(given) ?? typeof given}`);
  }
  const parsed: Partial<Record<PrunableName, number>> = {};
  for (const [name, value] of Object.entries(given)) {
    if (!isPrunable(name)) {
      throw bad(`export_config names ${name}, which is no hyperparameter that can be pruned here`, suggestName(name, PRUNABLE));
    }
    parsed[name] = checkSize(name, value, parent[name]);
  }
  if (Object.keys(parsed).length === 0) throw bad("export_config is empty", `name at least one of ${PRUNABLE.join(", ")}`);
  return parsed;
}

function isPrunable(name: string): name is PrunableName {
  return PRUNABLE.some((known) => known === name);
}

function checkSize(name: PrunableName, value: unknown, parent: number): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= parent) return value;
  const shown = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? typeof value);
  throw bad(`${name} ${shown} is not an integer from 1 to ${parent}, the parent's ${name}`);
}

function resolveAttention(target: ExportConfig, parent: Hyperparameters): { heads: number; groups: number } {
  const perGroup = parent.num_attention_heads / parent.num_query_groups;
  const groups = target.num_query_groups ?? parent.num_query_groups;
  const heads = target.num_attention_heads ?? groups * perGroup;
  if (heads % groups !== 0) {
    const below = Math.floor(heads / groups) * groups;
    const legal = [below, below + groups].filter((n) => n > 0 && n <= groups * perGroup);
    throw bad(
      `num_attention_heads ${heads} is not a multiple of the ${groups} query groups kept; the nearest legal ${legal.length > 1 ? "values are" : "value is"} ${legal.join(" and ")}`,
    );
  }
  if (heads / groups > perGroup) {
    throw bad(
      `num_attention_heads ${heads} in ${groups} query groups needs ${heads / groups} heads a group, but the parent has ${perGroup}; at most ${groups * perGroup} heads fit`,
      "heads never move between groups",
    );
  }
  return { heads, groups };
}

function widthWarnings(target: ExportConfig): string[] {
  return (["hidden_size", "ffn_hidden_size"] as const).flatMap((name) => {
    const width = target[name];
    if (width === undefined || width % WIDTH_MULTIPLE === 0) return [];
    return [`${name} ${width} is not a multiple of ${WIDTH_MULTIPLE}: tensor cores run it slower than the next multiple`];
  });
}

function bad(detail: string, hint?: string): PruneError {
  return new PruneError("BAD_EXPORT_CONFIG", detail, hint === undefined ? {} : { hint });
}
