import { PruneError } from "../../errors.js";
import { type Costs, layersOf, METRICS } from "./metrics.js";
import type { SearchedName, SearchSpace } from "./space.js";
import { costsAt, dimensionsAt, type Geometry, type Limits, type Polynomials } from "./walk.js";

/** What the smallest subnet of a space costs. Every cost grows with every size: no other subnet is nearer to any bound. */
export function leastCosts(space: SearchSpace, polynomials: Polynomials, geometry: Geometry): Costs {
  return costsAt(polynomials, { ...smallestWidths(space, geometry), ...dimensionsAt(geometry, "num_layers", space.num_layers[0] ?? 0) });
}

/** For each metric what a subnet costs at least, whichever layers stay. Every cost is linear in the layers of each kind: the dearest go. */
export function leastCostsOfAnyLayers(space: SearchSpace, polynomials: Polynomials, geometry: Geometry, layers: readonly string[]): Costs {
  const widths = smallestWidths(space, geometry);
  const kinds = [...new Set(layers)];
  const none = Object.fromEntries(kinds.map((kind) => [layersOf(kind), 0]));
  const withoutLayers = costsAt(polynomials, { ...widths, ...none });
  const withOne = new Map(kinds.map((kind) => [kind, costsAt(polynomials, { ...widths, ...none, [layersOf(kind)]: 1 })]));
  const entries = METRICS.map((metric) => {
    const rest = withoutLayers[metric];
    const each = layers.map((kind) => (withOne.get(kind)?.[metric] ?? 0) - rest).sort((a, b) => a - b);
    return [metric, each.slice(0, space.num_layers[0]).reduce((total, cost) => total + cost, rest)];
  });
  return Object.fromEntries(entries) as Costs; // METRICS names every metric
}

/**
 * Checks that each bound is met by what costs least.
 *
 * @param which - what is said of the layers of the smallest subnet
 * @throws PruneError BAD_CONSTRAINTS that names the bound and how near the space comes
 */
export function checkReachable(least: Costs, limits: Limits, which: string): void {
  for (const metric of METRICS) {
    const limit = limits[metric];
    if (limit === undefined || least[metric] <= limit) continue;
    throw new PruneError(
      "BAD_CONSTRAINTS",
      `${metric} <= ${format(limit)} cannot be met: the smallest subnet of the space has ${format(least[metric])}${which}`,
      { hint: "raise maxWidthPruning or maxDepthPruning, search more hyperparameters, or allow more" },
    );
  }
}

function smallestWidths(space: SearchSpace, geometry: Geometry): Record<string, number> {
  const names = (Object.keys(space) as SearchedName[]).filter((name) => name !== "num_layers");
  return Object.assign({}, ...names.map((name) => dimensionsAt(geometry, name, space[name]?.[0] ?? 0)));
}

function format(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 1 });
}
