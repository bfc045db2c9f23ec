import { PruneError } from "../../errors.js";
import type { Architecture } from "../architecture.js";
import type { DimensionSizes } from "../axes/evaluate.js";
import { PRUNABLE } from "../hyperparameters.js";
import { type Bounds, resolveBounds } from "./bounds.js";
import { type Costs, costPolynomials, layersOf, METRICS, type Metric, type Workload } from "./metrics.js";
import { substitute } from "./polynomial.js";
import { type SearchSpace, spaceSize } from "./space.js";
import { costsAt, dimensionsAt, type Geometry, type Limits, type MutableCosts, type Polynomials, type Sizes, walkSpace } from "./walk.js";

/** Sizes of the searched hyperparameters, and what a subnet of these sizes costs. */
export interface Candidate {
  readonly exportConfig: Readonly<Sizes>;
  readonly costs: Costs;
}

/** How candidates are chosen from a space. */
export interface SearchOptions extends Workload {
  readonly topK: number;
  /** Leaves out a candidate where it returns false. */
  readonly candidateFilter?: ((candidate: Candidate) => boolean) | undefined;
  /** The layers that stay of n, which matters where layers are of several kinds. Default: the first n. */
  readonly keptLayers?: ((n: number) => readonly number[]) | undefined;
}

/** What a search found. */
export interface SearchResult {
  readonly parent: Costs;
  readonly space: SearchSpace;
  readonly spaceSize: number;
  /** The bounds as numbers. */
  readonly limits: Limits;
  /** The metric that candidates are sorted by. */
  readonly primary: Metric;
  /** How many subnets meet every bound. */
  readonly feasible: number;
  /** The best of them, the largest first. */
  readonly candidates: readonly Candidate[];
  readonly warnings: readonly string[];
}

/**
 * Walks a whole space and keeps the largest subnets within all bounds.
 *
 * @throws PruneError BAD_CONSTRAINTS that says which bound cannot be met and how near the space comes
 */
export function searchSubnets(architecture: Architecture, space: SearchSpace, bounds: Bounds, options: SearchOptions): SearchResult {
  const polynomials = costPolynomials(architecture, options);
  const parent = costsAt(polynomials, dimensionsOf(architecture));
  const limits = resolveBounds(bounds, parent);
  const primary = METRICS.find((metric) => limits[metric] !== undefined);
  if (!primary) throw new PruneError("BAD_CONSTRAINTS", "a search needs a bound", { hint: `give at least one of ${METRICS.join(", ")}` });
  const geometry = geometryOf(architecture, options.keptLayers);
  const searched = inSearchedDimensions(architecture, space, polynomials);
  checkReachable(space, searched, geometry, limits);

  const best = new TopCandidates(options.topK, primary);
  let feasible = 0;
  walkSpace(space, searched, geometry, limits, (sizes, costs) => {
    if (options.candidateFilter && !options.candidateFilter({ exportConfig: { ...sizes }, costs: { ...costs } })) return;
    feasible += 1;
    best.offer(sizes, costs);
  });
  if (feasible === 0) {
    throw new PruneError("BAD_CONSTRAINTS", "each bound can be met by itself, but no candidate of the space meets all of them", {
      hint: "raise a bound, maxWidthPruning or maxDepthPruning, or loosen the candidate filter",
    });
  }
  const warnings = layerWarnings(architecture, space, options);
  return { parent, space, spaceSize: spaceSize(space), limits, primary, feasible, candidates: best.sorted(), warnings };
}

function layerWarnings({ layers }: Architecture, { num_layers }: SearchSpace, { keptLayers }: SearchOptions): string[] {
  if (keptLayers || num_layers.length < 2 || new Set(layers).size < 2) return [];
  return ["the layers are of several kinds, and scores decide which stay: costs are counted as if the first ones stayed"];
}

/** The costs of an architecture itself. */
export function costsOf(architecture: Architecture, workload: Workload): Costs {
  return costsAt(costPolynomials(architecture, workload), dimensionsOf(architecture));
}

/** The sizes of all dimensions, and the number of layers of each kind. */
function dimensionsOf({ sizes, layers }: Architecture): DimensionSizes {
  return { ...sizes, ...Object.fromEntries(Object.entries(countKinds(layers)).map(([kind, count]) => [layersOf(kind), count])) };
}

function countKinds(layers: readonly string[], of: readonly string[] = layers): Record<string, number> {
  const counts = Object.fromEntries(of.map((kind) => [kind, 0]));
  for (const kind of layers) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

function geometryOf({ layers, hyperparameters }: Architecture, keptLayers: SearchOptions["keptLayers"]): Geometry {
  const { num_query_groups, mamba_num_groups = 1 } = hyperparameters;
  return {
    groups: { num_attention_heads: num_query_groups, mamba_num_heads: mamba_num_groups },
    layerCounts: (n) => countKinds(keptLayers ? keptLayers(n).flatMap((layer) => layers[layer] ?? []) : layers.slice(0, n), layers),
  };
}

/** Costs with numbers for every dimension that is not searched. */
function inSearchedDimensions(architecture: Architecture, space: SearchSpace, polynomials: Polynomials): Polynomials {
  const searched = new Set(Object.keys(space).map((name) => PRUNABLE[name as keyof SearchSpace] as string));
  const fixed = Object.fromEntries(Object.entries(architecture.sizes).filter(([dimension]) => !searched.has(dimension)));
  const entries = METRICS.map((metric) => [metric, substitute(polynomials[metric], fixed)]);
  return Object.fromEntries(entries) as Polynomials; // METRICS names every metric
}

// Every cost grows with every size, so the smallest subnet is the nearest to any bound.
function checkReachable(space: SearchSpace, polynomials: Polynomials, geometry: Geometry, limits: Limits): void {
  const smallest = (Object.keys(space) as (keyof SearchSpace)[]).map((name) => dimensionsAt(geometry, name, space[name]?.[0] ?? 0));
  const least = costsAt(polynomials, Object.assign({}, ...smallest));
  for (const metric of METRICS) {
    const limit = limits[metric];
    if (limit === undefined || least[metric] <= limit) continue;
    throw new PruneError(
      "BAD_CONSTRAINTS",
      `${metric} <= ${format(limit)} cannot be met: the smallest subnet of the space has ${format(least[metric])}`,
      { hint: "raise maxWidthPruning or maxDepthPruning, search more hyperparameters, or allow more" },
    );
  }
}

/** The k candidates with the highest primary metric; of equals, the one that was found first. */
class TopCandidates {
  readonly #most: number;
  readonly #primary: Metric;
  readonly #kept: Candidate[] = [];

  constructor(most: number, primary: Metric) {
    this.#most = most;
    this.#primary = primary;
  }

  offer(sizes: Sizes, costs: MutableCosts): void {
    const value = costs[this.#primary];
    const last = this.#kept[this.#most - 1];
    if (last && last.costs[this.#primary] >= value) return;
    const at = this.#kept.findIndex((other) => other.costs[this.#primary] < value);
    this.#kept.splice(at < 0 ? this.#kept.length : at, 0, { exportConfig: { ...sizes }, costs: { ...costs } });
    if (this.#kept.length > this.#most) this.#kept.pop();
  }

  sorted(): readonly Candidate[] {
    return this.#kept;
  }
}

function format(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 1 });
}
