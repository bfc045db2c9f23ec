import { PruneError } from "../../errors.js";
import type { LayerCosts } from "../gradients/costs.js";
import type { GradientSpace } from "../gradients/space.js";
import { type Cutter, cutterBy, layerSizes, unscoredSizes } from "../gradients/unitCuts.js";
import type { LayerSizes } from "../hyperparameters.js";
import type { NetworkCosts } from "../network/costs.js";
import type { Accumulators } from "../scores.js";
import { bisect } from "../sensitivity/bisection.js";
import { type Degradations, monotonic, type Selection } from "../sensitivity/sensitivity.js";
import type { CostedSpace, SpaceProfile } from "./fastnas.js";

/** How gradients came to a network. */
export interface GradientSearch {
  readonly selection: Selection;
  readonly layers: readonly LayerSizes[];
  readonly cutter: Cutter;
  readonly costs: NetworkCosts;
  /** The negative of the largest sum of scores that a hyperparameter loses. */
  readonly score: number;
  /** What each hyperparameter's choices lose: by name and size. */
  readonly sensitivityMap: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** A space as it is before anything is measured, for its profile and for what it cannot meet. */
export function unscoredSpace(space: GradientSpace, costs: LayerCosts): CostedSpace {
  const sizes = unscoredSizes(space);
  return { hyperparameters: space.hyperparameters, costsOf: (selection) => costs(layerSizes(space, selection, sizes)) };
}

/**
 * Chooses the network under a constraint that loses least by scores of units: as little as can be of what the hyperparameter loses that loses
 * most (gradnas as NVIDIA ModelOpt has it, after arXiv 1905.10650). Nothing is run.
 *
 * The sum that a hyperparameter loses is its degradation, and bisection goes by the order of all of these: gradients have no scale of their
 * own that a threshold could be in.
 *
 * @param scores - by the hyperparameters' names in each layer, [units]
 * @param profile - a constraint that the smallest network of the space meets, as {@link checkProfile} sees to
 * @throws PruneError BAD_SCORES where scores are not this network's or cannot be ranked
 */
export function chooseByGradients(
  space: GradientSpace,
  scores: Accumulators,
  { metric, most }: Pick<SpaceProfile, "metric" | "most">,
  costs: LayerCosts,
): GradientSearch {
  const { hyperparameters } = space;
  const cutter = cutterBy(space, scores);
  const layersOf = (selection: Selection): LayerSizes[] => layerSizes(space, selection, (one, count) => cutter(one, count).sizes);
  const degradations = Object.fromEntries(
    hyperparameters.map((one) => [one.name, monotonic(one.choices.map((count) => cutter(one, count).cost))]),
  );
  const selection = bisect(hyperparameters, { degradations: ranked(degradations) }, (one) => costs(layersOf(one))[metric] <= most);
  if (!selection) throw new PruneError("INTERNAL", "the smallest network meets the constraint, and was not found");
  const layers = layersOf(selection);
  return {
    selection,
    layers,
    cutter,
    costs: costs(layers),
    score: -Math.max(...hyperparameters.map((one) => cutter(one, selection[one.name] ?? 0).cost)),
    sensitivityMap: Object.fromEntries(
      hyperparameters.map(({ name, choices }) => [
        name,
        Object.fromEntries(choices.map((size, i) => [size, degradations[name]?.[i] ?? 0])),
      ]),
    ),
  };
}

/** Each degradation's place among all of them: what is equal has one place. */
function ranked(degradations: Readonly<Record<string, Degradations>>): Readonly<Record<string, Degradations>> {
  const ascending = [...new Set(Object.values(degradations).flat())].sort((a, b) => a - b);
  const places = new Map(ascending.map((degradation, place) => [degradation, place]));
  return Object.fromEntries(Object.entries(degradations).map(([name, all]) => [name, all.map((one) => places.get(one) ?? 0)]));
}
