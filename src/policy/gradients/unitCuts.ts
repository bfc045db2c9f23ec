import type { Architecture } from "../architecture.js";
import type { LayerSizes } from "../hyperparameters.js";
import { type Accumulators, checkedAccumulator } from "../scores.js";
import type { Selection } from "../sensitivity/sensitivity.js";
import { cutFfn, cutHeads, type FfnCut, type HeadsCut, type HeadsShape, headsShapes } from "./cuts.js";
import { hyperparameterName, masksOf, unitsOf } from "./masks.js";
import type { GradientSpace, UnitHyperparameter } from "./space.js";

/** What a choice keeps in one layer. */
export type LayerCut = Partial<FfnCut> & Partial<HeadsCut>;

/** A choice of a hyperparameter: what its layers keep. */
export interface UnitCut {
  readonly sizes: Partial<LayerSizes>;
  readonly byLayer: ReadonlyMap<number, LayerCut>;
  /** The largest sum of the scores that one of its layers loses. */
  readonly cost: number;
}

/** Gives the cut that a size of a hyperparameter is. */
export type Cutter = (hyperparameter: UnitHyperparameter, count: number) => UnitCut;

/**
 * Makes cuts by scores: in each layer the units go on which the loss depends least. Of the shapes that a number of heads can have, that one is
 * taken which costs least, in all layers of the hyperparameter the same; of the smallest choice the one that saves most, which the smallest
 * network is made of.
 *
 * @throws PruneError BAD_SCORES on scores of another size, or that cannot be ranked
 */
export function cutterBy({ architecture }: Pick<GradientSpace, "architecture">, scores: Accumulators): Cutter {
  const scoresOf = scoreReader(architecture, scores);
  const groups = architecture.hyperparameters.num_query_groups;
  const overLayers = (one: UnitHyperparameter, sizes: Partial<LayerSizes>, cut: (scores: Float32Array) => FfnCut | HeadsCut): UnitCut => {
    const cuts = one.layers.map((layer) => [layer, cut(scoresOf(one, layer))] as const);
    return { sizes, byLayer: new Map(cuts), cost: Math.max(...cuts.map(([, { cost }]) => cost)) };
  };
  return memoized((one, count) => {
    if (one.dimension === "ffn") return overLayers(one, { ffn_hidden_size: count }, (units) => cutFfn(units, count));
    const shapes = headsShapes(count, architecture.hyperparameters);
    const allowed = count === one.choices[0] ? shapes.slice(0, 1) : shapes;
    const cuts = allowed.map((shape) => overLayers(one, sizesOf(shape), (units) => cutHeads(units, shape, groups)));
    return cuts.reduce((best, next) => (next.cost < best.cost ? next : best));
  });
}

/** The sizes that choices make before anything is measured: a number of heads then is in as few groups as it can. */
export function unscoredSizes({
  architecture,
}: Pick<GradientSpace, "architecture">): (one: UnitHyperparameter, count: number) => Partial<LayerSizes> {
  return ({ dimension }, count) => {
    if (dimension === "ffn") return { ffn_hidden_size: count };
    const [fewest] = headsShapes(count, architecture.hyperparameters);
    return fewest ? sizesOf(fewest) : {};
  };
}

/** The sizes of every layer that a selection makes. */
export function layerSizes(
  { architecture, hyperparameters }: GradientSpace,
  selection: Selection,
  sizesAt: (one: UnitHyperparameter, count: number) => Partial<LayerSizes>,
): LayerSizes[] {
  const { ffn_hidden_size = 0, num_attention_heads, num_query_groups } = architecture.hyperparameters;
  const sizes = architecture.layers.map((): LayerSizes => ({ ffn_hidden_size, num_attention_heads, num_query_groups }));
  for (const one of hyperparameters) {
    const cut = sizesAt(one, selection[one.name] ?? unitsOf(architecture, one.dimension));
    for (const layer of one.layers) sizes[layer] = { ...(sizes[layer] as LayerSizes), ...cut }; // layers of the architecture
  }
  return sizes;
}

function sizesOf({ groups, perGroup }: HeadsShape): Pick<LayerSizes, "num_attention_heads" | "num_query_groups"> {
  return { num_attention_heads: groups * perGroup, num_query_groups: groups };
}

function scoreReader(architecture: Architecture, scores: Accumulators): (one: UnitHyperparameter, layer: number) => Float32Array {
  const masks = masksOf(architecture);
  return ({ dimension }, layer) =>
    checkedAccumulator(scores, hyperparameterName(masks, dimension, layer), unitsOf(architecture, dimension));
}

/** Bisection asks for the same cuts again and again. */
function memoized(cut: Cutter): Cutter {
  const known = new Map<string, UnitCut>();
  return (one, count) => {
    const key = `${one.name} ${count}`;
    const found = known.get(key) ?? cut(one, count);
    known.set(key, found);
    return found;
  };
}
