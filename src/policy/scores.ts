import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { axisSize } from "./axes/evaluate.js";
import { parseAxis } from "./axes/expression.js";
import type { HookRow, Importance } from "./families/table.js";
import { nameInLayer } from "./tensors.js";

/** Raw accumulators by name, before any square root: `A` of every hook point, and `layer_scores` [L]. */
export type Accumulators = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;

/** The accumulator that holds one cosine distance for each layer. */
export const LAYER_SCORES = "layer_scores";

/** Where to measure, and the name to store it under. */
export interface HookPoint {
  readonly key: string;
  readonly module: string;
  readonly side: HookRow["side"];
  readonly reduction: HookRow["reduction"];
}

/** Every hook point of an architecture, layer by layer. */
export function hookPoints({ table, hyperparameters }: Architecture): HookPoint[] {
  return Array.from({ length: hyperparameters.num_layers }, (_, layer) =>
    table.hooks.map((hook) => ({
      key: nameInLayer(hook.accumulator, layer),
      module: nameInLayer(hook.module, layer),
      side: hook.side,
      reduction: hook.reduction,
    })),
  ).flat();
}

/** Gathers the layers' scalars into one tensor, which is how score files hold them. */
export function stackLayerScores(architecture: Architecture, collected: Accumulators): Accumulators {
  const stacked = new Map(collected);
  const hook = architecture.table.hooks.find(({ importance }) => importance === "layer");
  if (!hook) return stacked;
  const layers = architecture.hyperparameters.num_layers;
  const data = new Float32Array(layers);
  for (let layer = 0; layer < layers; layer++) {
    const key = nameInLayer(hook.accumulator, layer);
    data[layer] = collected.get(key)?.data[0] ?? Number.NaN;
    stacked.delete(key);
  }
  return stacked.set(LAYER_SCORES, { shape: [layers], data });
}

/**
 * The accumulators of one kind of importance in one layer, checked.
 *
 * @throws PruneError BAD_SCORES where one is missing, has another size, is negative or not finite
 */
export function layerAccumulators(architecture: Architecture, scores: Accumulators, importance: Importance, layer: number): Float32Array[] {
  return architecture.table.hooks
    .filter((hook) => hook.importance === importance && hook.axis !== undefined)
    .map((hook) => {
      const size = axisSize(parseAxis(hook.axis ?? ""), architecture.sizes);
      return checkedAccumulator(scores, nameInLayer(hook.accumulator, layer), size);
    });
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
