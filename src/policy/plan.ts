import { PruneError } from "../errors.js";
import { type Architecture, type ModelConfig, withHyperparameters, withLayerSizes } from "./architecture.js";
import { type ConfigPatch, headsAhead, patchConfig } from "./childConfig.js";
import { chooseKept } from "./chooseKept.js";
import { countActiveParams, countParams } from "./cost.js";
import { type ExportConfig, resolveExportConfig } from "./exportConfig.js";
import type { FamilyTable } from "./families/table.js";
import type { Hyperparameters, LayerSizes } from "./hyperparameters.js";
import { isPositions, type Kept } from "./kept.js";
import type { Ranking } from "./rank.js";

/** What one side of a plan amounts to. */
export interface PlanSide {
  readonly hyperparameters: Hyperparameters;
  readonly params: number;
  readonly activeParams: number;
}

/** The mode that made a plan. */
export type PlanMode = "mcore_gpt_minitron" | "gradnas";

/** Everything that is decided about a child, and nothing about how it is cut. Immutable; kept as plan.json. */
export interface Plan {
  readonly mode: PlanMode;
  readonly family: string;
  readonly exportConfig: ExportConfig;
  readonly parent: PlanSide;
  readonly child: PlanSide;
  /** The sizes of the child's layers where these differ: no config states them, and `exportConfig` and `config` are empty. */
  readonly layers?: readonly LayerSizes[];
  readonly kept: Kept;
  readonly config: ConfigPatch;
  readonly warnings: readonly string[];
}

/** What a target comes to, before anything is ranked. */
export type PlanOutline = Pick<Plan, "exportConfig" | "parent" | "child" | "warnings">;

/** Checks a target and counts both sides; where layers are of several kinds, as if the first of them stayed. Throws BAD_EXPORT_CONFIG. */
export function outlinePlan(architecture: Architecture, config: ModelConfig, target: unknown, kept?: Kept): PlanOutline {
  const { exportConfig, hyperparameters, warnings } = resolveExportConfig(target, architecture.hyperparameters);
  refuseLayered(architecture);
  const { table, layers } = architecture;
  checkHeadDim(table, hyperparameters);
  const guessed = kept === undefined && hyperparameters.num_layers < layers.length && new Set(layers).size > 1;
  const staying = kept && keptLayers(kept, layers.length).flatMap((layer) => layers[layer] ?? []);
  return {
    exportConfig,
    parent: describeSide(architecture),
    child: describeSide(withHyperparameters(architecture, hyperparameters, staying)),
    warnings: [
      ...warnings,
      ...loaderWarnings(architecture, hyperparameters),
      ...(guessed ? ["which layers stay is decided by scores: parameters are counted as if the first ones stayed"] : []),
      ...(headsAhead(config, table) !== undefined
        ? ["the heads for several tokens ahead (multi-token prediction) are left out of the child"]
        : []),
    ],
  };
}

/** Decides what the child keeps. Throws BAD_EXPORT_CONFIG, and BAD_SCORES from the ranking. */
export function makePlan(architecture: Architecture, config: ModelConfig, target: unknown, ranking: Ranking): Plan {
  const { hyperparameters } = resolveExportConfig(target, architecture.hyperparameters);
  return planOf("mcore_gpt_minitron", architecture, config, target, chooseKept(architecture, hyperparameters, ranking));
}

/** The plan of a target of which it is known what stays. Throws BAD_EXPORT_CONFIG. */
export function planOf(mode: PlanMode, architecture: Architecture, config: ModelConfig, target: unknown, kept: Kept): Plan {
  const outline = outlinePlan(architecture, config, target, kept);
  const layers = keptLayers(kept, architecture.hyperparameters.num_layers);
  const patch = patchConfig(config, architecture, outline.child.hyperparameters, layers);
  return { mode, family: architecture.table.family, ...outline, kept, config: patch };
}

/** The plan of a child whose layers have sizes of their own. */
export function planOfLayers(mode: PlanMode, architecture: Architecture, layers: readonly LayerSizes[], kept: Kept): Plan {
  return { mode, family: architecture.table.family, ...outlineLayers(architecture, layers), layers, kept, config: {} };
}

/** What layers of sizes of their own come to. */
export function outlineLayers(architecture: Architecture, layers: readonly LayerSizes[]): PlanOutline {
  refuseLayered(architecture);
  return {
    exportConfig: {},
    parent: describeSide(architecture),
    child: describeSide(withLayerSizes(architecture, layers)),
    warnings: ["layers differ in their sizes, which no config.json states: the child is opened by its architecture.json"],
  };
}

/**
 * The same child of a parent whose config is of another family, by the fields of that.
 *
 * @throws PruneError BAD_EXPORT_CONFIG where that family has no such sizes
 */
export function restatePlan({ mode, exportConfig: target, kept }: Plan, architecture: Architecture, config: ModelConfig): Plan {
  return planOf(mode, architecture, config, target, kept);
}

/** The parent's layers that a child keeps, in order. */
export function keptLayers(kept: Kept, layers: number): readonly number[] {
  return kept.layer && isPositions(kept.layer) ? kept.layer : Array.from({ length: layers }, (_, layer) => layer);
}

/** Refuses a network whose layers differ: rankings and configs take them to be alike. Throws BAD_CONFIG. */
export function refuseLayered({ layerSizes, table }: Architecture): void {
  if (!layerSizes) return;
  throw new PruneError("BAD_CONFIG", `the layers of this ${table.family} have sizes of their own: it was pruned already`, {
    hint: "prune its parent further instead",
  });
}

function describeSide(architecture: Architecture): PlanSide {
  return {
    hyperparameters: architecture.hyperparameters,
    params: countParams(architecture),
    activeParams: countActiveParams(architecture),
  };
}

function checkHeadDim({ family, impliedHeadDim }: FamilyTable, child: Hyperparameters): void {
  const { hidden_size: hidden, num_attention_heads: heads, kv_channels: channels } = child;
  if (!impliedHeadDim || hidden === heads * channels) return;
  throw new PruneError("BAD_EXPORT_CONFIG", `${heads} heads of ${channels} channels do not make the hidden_size ${hidden}`, {
    hint: `${family} has no field for the channels of a head, which are hidden_size / heads: prune num_query_groups to n and hidden_size to ${channels} n`,
  });
}

// https://github.com/huggingface/transformers/pull/46211
function loaderWarnings({ table, hyperparameters: parent }: Architecture, child: Hyperparameters): string[] {
  const { hidden_size: hidden, num_attention_heads: heads } = child;
  const refused = table.loaderDemands === "hidden_size_multiple_of_heads" && hidden % heads !== 0;
  const rescaled = table.scalesEmbeddings && hidden < parent.hidden_size;
  return [
    ...(refused
      ? [
          `transformers 5 refuses to load ${table.family} with hidden_size ${hidden}, no multiple of its ${heads} heads, though head_dim is explicit; other loaders, this one included, take it`,
        ]
      : []),
    ...(rescaled
      ? [
          `${table.family} multiplies embeddings by the square root of hidden_size: they shrink by ${Math.sqrt(hidden / parent.hidden_size).toFixed(3)} against what the layers add, which retraining has to make up for`,
        ]
      : []),
  ];
}
