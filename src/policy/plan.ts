import type { Architecture, ModelConfig } from "./architecture.js";
import { withHyperparameters } from "./architecture.js";
import { type ConfigPatch, patchConfig } from "./childConfig.js";
import { countActiveParams, countParams } from "./cost.js";
import { type ExportConfig, resolveExportConfig } from "./exportConfig.js";
import type { Hyperparameters } from "./hyperparameters.js";
import { isPositions, type Kept } from "./kept.js";
import { chooseKept, type Ranking } from "./rank.js";

/** What one side of a plan amounts to. */
export interface PlanSide {
  readonly hyperparameters: Hyperparameters;
  readonly params: number;
  readonly activeParams: number;
}

/** Everything that is decided about a child, and nothing about how it is cut. Immutable; kept as plan.json. */
export interface Plan {
  readonly mode: "mcore_gpt_minitron";
  readonly family: string;
  readonly layout: string;
  readonly exportConfig: ExportConfig;
  readonly parent: PlanSide;
  readonly child: PlanSide;
  readonly kept: Kept;
  readonly config: ConfigPatch;
  readonly warnings: readonly string[];
}

/** What a target comes to, before anything is ranked. */
export type PlanOutline = Pick<Plan, "exportConfig" | "parent" | "child" | "warnings">;

/** Checks a target and counts both sides. Throws BAD_EXPORT_CONFIG. */
export function outlinePlan(architecture: Architecture, target: unknown): PlanOutline {
  const { exportConfig, hyperparameters, warnings } = resolveExportConfig(target, architecture.hyperparameters);
  return {
    exportConfig,
    parent: describeSide(architecture),
    child: describeSide(withHyperparameters(architecture, hyperparameters)),
    warnings: [...warnings, ...loaderWarnings(architecture, hyperparameters)],
  };
}

/** Decides what the child keeps. Throws BAD_EXPORT_CONFIG, and BAD_SCORES from the ranking. */
export function makePlan(architecture: Architecture, config: ModelConfig, target: unknown, ranking: Ranking): Plan {
  const outline = outlinePlan(architecture, target);
  const kept = chooseKept(outline.parent.hyperparameters, outline.child.hyperparameters, ranking);
  const { family, layout } = architecture.table;
  const patch = patchConfig(config, architecture, outline.child.hyperparameters, keptLayers(kept, architecture.hyperparameters.num_layers));
  return { mode: "mcore_gpt_minitron", family, layout, ...outline, kept, config: patch };
}

/** The parent's layers that a child keeps, in order. */
export function keptLayers(kept: Kept, layers: number): readonly number[] {
  return kept.layer && isPositions(kept.layer) ? kept.layer : Array.from({ length: layers }, (_, layer) => layer);
}

function describeSide(architecture: Architecture): PlanSide {
  return {
    hyperparameters: architecture.hyperparameters,
    params: countParams(architecture),
    activeParams: countActiveParams(architecture),
  };
}

// https://github.com/huggingface/transformers/pull/46211
function loaderWarnings({ table }: Architecture, { hidden_size, num_attention_heads: heads }: Hyperparameters): string[] {
  if (table.loaderDemands !== "hidden_size_multiple_of_heads" || hidden_size % heads === 0) return [];
  return [
    `transformers 5 refuses to load ${table.family} with hidden_size ${hidden_size}, no multiple of its ${heads} heads, though head_dim is explicit; other loaders, this one included, take it`,
  ];
}
