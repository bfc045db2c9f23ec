import { PruneError } from "../errors.js";
import { type Architecture, exists } from "./architecture.js";
import { axisSize } from "./axes/evaluate.js";
import { parseAxis } from "./axes/expression.js";
import type { HookRow, Importance, ReductionName } from "./families/table.js";
import { nameAt } from "./tensors.js";

/** Raw accumulators by name, before any square root: `A` of every hook point, and `layer_scores` [L]. */
export type Accumulators = ReadonlyMap<string, Accumulator>;

export interface Accumulator {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** The accumulator that holds one cosine distance for each layer. */
export const LAYER_SCORES = "layer_scores";

const EXPERT_SUFFIX = ".{expert}";

/** Where to measure, and the name to store it under. */
export interface HookPoint {
  readonly key: string;
  readonly module: string;
  readonly side: HookRow["side"];
  readonly reduction: ReductionName;
}

/** Every hook point of an architecture, layer by layer. */
export function hookPoints(architecture: Architecture): HookPoint[] {
  return architecture.layers.flatMap((_, layer) =>
    hooksOf(architecture, layer).map((hook) => ({
      key: nameAt(hook.accumulator.replace(EXPERT_SUFFIX, ""), { layer }),
      module: nameAt(hook.module, { layer }),
      side: hook.side,
      reduction: hook.reduction,
    })),
  );
}

/** Arranges what was collected as score files hold it: the layers' scalars in one tensor, and one tensor for each expert. */
export function arrangeScores(architecture: Architecture, collected: Accumulators): Accumulators {
  const arranged = new Map(collected);
  const distances = new Float32Array(architecture.layers.length);
  for (const layer of architecture.layers.keys()) {
    for (const hook of hooksOf(architecture, layer)) {
      const key = nameAt(hook.accumulator.replace(EXPERT_SUFFIX, ""), { layer });
      const found = collected.get(key);
      if (hook.importance === "layer") {
        distances[layer] = found?.data[0] ?? Number.NaN;
        arranged.delete(key);
      } else if (hook.accumulator.endsWith(EXPERT_SUFFIX) && found) {
        arranged.delete(key);
        for (const [expert, data] of rowsOf(found).entries()) arranged.set(`${key}.${expert}`, { shape: [data.length], data });
      }
    }
  }
  return arranged.set(LAYER_SCORES, { shape: [distances.length], data: distances });
}

/**
 * The accumulators of one kind of importance in one layer, checked.
 *
 * @throws PruneError BAD_SCORES where one is missing, has another size, is negative or not finite
 */
export function layerAccumulators(architecture: Architecture, scores: Accumulators, importance: Importance, layer: number): Float32Array[] {
  return hooksOf(architecture, layer)
    .filter((hook) => hook.importance === importance)
    .map((hook) => readAccumulator(architecture, scores, hook, { layer }));
}

/** The accumulator of one expert's channels, checked. Throws BAD_SCORES. */
export function expertAccumulator(architecture: Architecture, scores: Accumulators, layer: number, expert: number): Float32Array {
  const hook = hooksOf(architecture, layer).find(({ importance }) => importance === "moe_ffn");
  return hook ? readAccumulator(architecture, scores, hook, { layer, expert }) : new Float32Array();
}

/** One accumulator of a known size, all of whose values can be ranked. Throws BAD_SCORES. */
export function checkedAccumulator(scores: Accumulators, name: string, size: number): Float32Array {
  const found = scores.get(name);
  if (!found) {
    throw new PruneError("BAD_SCORES", `the scores have no ${name}`, {
      hint: "score the checkpoint again, or name the score file of this model",
    });
  }
  if (found.data.length !== size) {
    throw new PruneError("BAD_SCORES", `${name} has ${found.data.length} scores where the model has ${size}`, {
      hint: "the score file is of another model",
    });
  }
  // Rounding takes the cosine of equal states a little over 1.
  const least = name === LAYER_SCORES ? -1e-3 : 0;
  const wrong = found.data.findIndex((value) => !Number.isFinite(value) || value < least);
  if (wrong >= 0) {
    throw new PruneError("BAD_SCORES", `${name}[${wrong}] is ${found.data[wrong]}; importances are finite and not negative`, {
      hint: "the forward pass overflowed: calibrate in bfloat16 or float32, and look for NaN in the weights",
    });
  }
  return found.data;
}

function hooksOf({ table, layers, flags }: Architecture, layer: number): HookRow[] {
  const kind = layers[layer];
  return table.hooks.filter((hook) => kind !== undefined && (hook.on?.includes(kind) ?? true) && exists(hook, flags));
}

function readAccumulator(
  architecture: Architecture,
  scores: Accumulators,
  hook: HookRow,
  place: { layer: number; expert?: number },
): Float32Array {
  const axis = parseAxis(hook.axis ?? "1");
  const whole = checkedAccumulator(scores, nameAt(hook.accumulator, place), axisSize(axis, architecture.sizes));
  if (hook.part === undefined || axis.kind !== "concatenation") return whole;
  const sizes = axis.parts.map((part) => axisSize(part, architecture.sizes));
  const begin = sizes.slice(0, hook.part).reduce((sum, size) => sum + size, 0);
  return whole.subarray(begin, begin + (sizes[hook.part] ?? 0));
}

function rowsOf({ shape, data }: Accumulator): Float32Array[] {
  const [rows = 0, columns = 0] = shape;
  return Array.from({ length: rows }, (_, row) => data.slice(row * columns, (row + 1) * columns));
}
