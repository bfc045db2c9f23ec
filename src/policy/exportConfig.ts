import { PruneError } from "../errors.js";
import { fewestExperts, type Hyperparameters, PRUNABLE_NAMES, type PrunableName, prunableNames } from "./hyperparameters.js";
import { suggestName } from "./nearest.js";
import { shown } from "./shown.js";

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
const WIDTHS = ["hidden_size", "ffn_hidden_size", "moe_ffn_hidden_size", "moe_shared_expert_intermediate_size"] as const;

/**
 * Checks target sizes against the parent's.
 *
 * @param given - an untrusted value: from JSON, a script, a plan file
 * @throws PruneError BAD_EXPORT_CONFIG that names the hyperparameter and its legal values
 */
export function resolveExportConfig(given: unknown, parent: Hyperparameters): ResolvedExport {
  const exportConfig = parseExportConfig(given, parent);
  const { heads, groups } = resolveAttention(exportConfig, parent);
  checkExperts(exportConfig, parent);
  checkMambaHeads(exportConfig, parent);
  const hyperparameters: Hyperparameters = { ...parent, ...exportConfig, num_attention_heads: heads, num_query_groups: groups };
  return { exportConfig, hyperparameters, warnings: widthWarnings(exportConfig, parent) };
}

function parseExportConfig(given: unknown, parent: Hyperparameters): ExportConfig {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw bad(`export_config must be an object such as {"ffn_hidden_size": 9216}, not ${shown(given)}`);
  }
  const prunable = prunableNames(parent);
  const parsed: Partial<Record<PrunableName, number>> = {};
  for (const [name, value] of Object.entries(given)) {
    const known = PRUNABLE_NAMES.find((prunableName) => prunableName === name);
    const size = known && parent[known];
    if (known && size === undefined) throw bad(`this network has no ${known}`, `it has ${prunable.join(", ")}`);
    if (!known || size === undefined) {
      throw bad(`export_config names ${name}, which is no hyperparameter that can be pruned here`, suggestName(name, prunable));
    }
    parsed[known] = checkSize(known, value, size);
  }
  if (Object.keys(parsed).length === 0) throw bad("export_config is empty", `name at least one of ${prunable.join(", ")}`);
  return parsed;
}

function checkSize(name: PrunableName, value: unknown, parent: number): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= parent) return value;
  throw bad(`${name} ${shown(value)} is not an integer from 1 to ${parent}, the parent's ${name}`);
}

function resolveAttention(target: ExportConfig, parent: Hyperparameters): { heads: number; groups: number } {
  const perGroup = parent.num_attention_heads / parent.num_query_groups;
  const groups = target.num_query_groups ?? parent.num_query_groups;
  const heads = target.num_attention_heads ?? groups * perGroup;
  checkMultiple("num_attention_heads", heads, groups, "query groups kept", groups * perGroup);
  if (heads / groups > perGroup) {
    throw bad(
      `num_attention_heads ${heads} in ${groups} query groups needs ${heads / groups} heads a group, but the parent has ${perGroup}; at most ${groups * perGroup} heads fit`,
      "heads never move between groups",
    );
  }
  return { heads, groups };
}

function checkMambaHeads(target: ExportConfig, { mamba_num_heads: most = 0, mamba_num_groups: groups = 1 }: Hyperparameters): void {
  const heads = target.mamba_num_heads;
  if (heads !== undefined) checkMultiple("mamba_num_heads", heads, groups, "groups that share B and C", most);
}

/** The router must find as many experts, in as many of its groups, as a token passes. */
function checkExperts(target: ExportConfig, parent: Hyperparameters): void {
  const experts = target.num_moe_experts;
  if (experts === undefined) return;
  const { moe_router_topk: topk = 1, moe_router_num_groups: groups = 1, num_moe_experts: most = experts } = parent;
  checkMultiple("num_moe_experts", experts, groups, "groups that the router chooses among", most);
  const fewest = fewestExperts(parent);
  if (experts < fewest) throw bad(`num_moe_experts ${experts} is too few: a token passes ${topk} experts, which takes at least ${fewest}`);
}

function checkMultiple(name: PrunableName, value: number, of: number, what: string, most: number): void {
  if (value % of === 0) return;
  const below = Math.floor(value / of) * of;
  const legal = [below, below + of].filter((n) => n > 0 && n <= most);
  throw bad(
    `${name} ${value} is not a multiple of the ${of} ${what}; the nearest legal ${legal.length > 1 ? "values are" : "value is"} ${legal.join(" and ")}`,
  );
}

function widthWarnings(target: ExportConfig, parent: Hyperparameters): string[] {
  return WIDTHS.flatMap((name) => {
    const width = target[name];
    if (width === undefined || width === parent[name] || width % WIDTH_MULTIPLE === 0) return [];
    return [`${name} ${width} is not a multiple of ${WIDTH_MULTIPLE}: tensor cores run it slower than the next multiple`];
  });
}

function bad(detail: string, hint?: string): PruneError {
  return new PruneError("BAD_EXPORT_CONFIG", detail, hint === undefined ? {} : { hint });
}
