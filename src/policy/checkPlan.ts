import { PruneError } from "../errors.js";
import { type Architecture, layersWith, type ModelConfig } from "./architecture.js";
import type { DimensionSizes } from "./axes/evaluate.js";
import { patchConfig } from "./childConfig.js";
import { DIMENSION_SCOPES, dimensionSizes, type Hyperparameters, type LayerSizes, type PrunableDimension } from "./hyperparameters.js";
import { isPositions, type Kept, type KeptTree } from "./kept.js";
import { keptLayers, outlineLayers, outlinePlan, type Plan } from "./plan.js";

/**
 * Checks a plan that was read from a file against the checkpoint that it is to cut: a plan is data that people edit and programs write, and
 * must still be legal in every set.
 *
 * @throws PruneError BAD_PLAN that names the dimension; BAD_EXPORT_CONFIG where its target is not legal
 */
export function checkPlan(architecture: Architecture, config: ModelConfig, plan: Plan, where: string): void {
  const fail = (what: string): never => {
    throw new PruneError("BAD_PLAN", `${where}: ${what}`, { hint: "plan again for this checkpoint" });
  };
  const { family } = architecture.table;
  if (plan.family !== family) fail(`the plan is for ${plan.family}, the checkpoint is ${family}`);
  const { num_layers } = architecture.hyperparameters;
  if (plan.layers) {
    const wrong = findLayerProblem(plan.layers, architecture.hyperparameters);
    if (wrong) fail(wrong);
  }
  const outline = plan.layers ? outlineLayers(architecture, plan.layers) : outlinePlan(architecture, config, plan.exportConfig);
  if (!sameSizes(plan.parent.hyperparameters, outline.parent.hyperparameters))
    fail("the parent's hyperparameters are not this checkpoint's");
  if (!sameSizes(plan.child.hyperparameters, outline.child.hyperparameters))
    fail("the child's hyperparameters are not what its export_config makes");
  const problem = findKeptProblem(plan.kept, architecture, outline.child.hyperparameters, plan.layers);
  if (problem) fail(problem);
  const patch = plan.layers ? {} : patchConfig(config, architecture, outline.child.hyperparameters, keptLayers(plan.kept, num_layers));
  if (JSON.stringify(sorted(patch)) !== JSON.stringify(sorted(plan.config))) fail("its config fields do not follow from what it keeps");
}

function sameSizes(a: Hyperparameters, b: Hyperparameters): boolean {
  return (Object.keys({ ...a, ...b }) as (keyof Hyperparameters)[]).every((name) => a[name] === b[name]);
}

function sorted(record: Readonly<Record<string, unknown>>): [string, unknown][] {
  return Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
}

function findLayerProblem(layers: readonly LayerSizes[], parent: Hyperparameters): string | undefined {
  if (layers.length !== parent.num_layers) return `it has sizes of ${layers.length} layers, the checkpoint has ${parent.num_layers} layers`;
  const perGroup = parent.num_attention_heads / parent.num_query_groups;
  const wrong = layers.findIndex(
    ({ num_attention_heads: heads, num_query_groups: groups, ...sizes }) =>
      groups > parent.num_query_groups ||
      heads % groups !== 0 ||
      heads / groups > perGroup ||
      sizes.ffn_hidden_size > (parent.ffn_hidden_size ?? 0),
  );
  return wrong < 0 ? undefined : `layer ${wrong} has sizes that none of the checkpoint's layers can be cut to`;
}

function findKeptProblem(
  kept: Kept,
  architecture: Architecture,
  child: Hyperparameters,
  layerSizes: readonly LayerSizes[] | undefined,
): string | undefined {
  const before = architecture.sizes;
  const whole = dimensionSizes(child);
  const own = layerSizes?.map((sizes) => dimensionSizes({ ...child, ...sizes }));
  const sizesIn = (layer: number | undefined): DimensionSizes => (layer === undefined ? whole : (own?.[layer] ?? whole));
  const stays = keptLayers(kept, architecture.hyperparameters.num_layers);
  // Before more is made of them: a plan that fits nothing may keep millions.
  if (stays.length !== child.num_layers) return `layer keeps ${stays.length} positions, the child has ${child.num_layers}`;
  const staying = new Set(stays);
  for (const dimension of Object.keys(DIMENSION_SCOPES) as PrunableDimension[]) {
    const size = before[dimension] ?? 0;
    const targetIn = (layer?: number): number => sizesIn(layer)[dimension] ?? 0;
    const tree = kept[dimension];
    if (tree === undefined) {
      const target = own ? Math.min(...own.map((_, layer) => targetIn(layer))) : targetIn();
      if (size !== target) return `it keeps no ${dimension} positions, but ${dimension} shrinks from ${size} to ${target}`;
      continue;
    }
    const layers = layersWith(architecture, dimension).filter((layer) => staying.has(layer));
    const problem = findTreeProblem(tree, DIMENSION_SCOPES[dimension], { dimension, size, targetIn, layers, kept, sizes: before });
    if (problem) return problem;
  }
  return undefined;
}

interface TreeCheck {
  readonly dimension: string;
  readonly size: number;
  /** The positions that a layer of the child has. */
  readonly targetIn: (layer: number | undefined) => number;
  readonly layers: readonly number[];
  readonly kept: Kept;
  readonly sizes: Architecture["sizes"];
}

function findTreeProblem(tree: KeptTree, scopes: readonly string[], check: TreeCheck, path: readonly number[] = []): string | undefined {
  const { dimension, size, targetIn } = check;
  const at = path.length === 0 ? dimension : `${dimension} of ${path.join(".")}`;
  const [scope, ...inner] = scopes;
  if (scope === undefined) {
    if (!isPositions(tree)) return `${at} must be one list of positions`;
    const target = targetIn(path[0]);
    if (tree.length !== target) return `${at} keeps ${tree.length} positions, the child has ${target}`;
    const last = tree.at(-1) ?? 0;
    return last >= size ? `${at} keeps position ${last} of ${size}` : undefined;
  }
  if (isPositions(tree)) return `${at} must have positions for each ${scope}`;
  const expected = scope === "layer" ? check.layers : keptWithin(check, scope, path[0] ?? 0);
  if (Object.keys(tree).length !== expected.length) return `${at} must have one entry for each kept ${scope}`;
  for (const outer of expected) {
    const branch = tree[String(outer)];
    if (branch === undefined) return `${at} has no entry for ${scope} ${outer}`;
    const problem = findTreeProblem(branch, inner, check, [...path, outer]);
    if (problem) return problem;
  }
  return undefined;
}

/** The positions of a dimension that a layer keeps: those that inner dimensions must have sets for. */
function keptWithin({ kept, sizes }: TreeCheck, dimension: string, layer: number): readonly number[] {
  const tree = dimension === "group" || dimension === "expert" ? kept[dimension] : undefined;
  const chosen = tree === undefined || isPositions(tree) ? undefined : tree[String(layer)];
  return chosen !== undefined && isPositions(chosen) ? chosen : Array.from({ length: sizes[dimension] ?? 0 }, (_, position) => position);
}
