import { PruneError } from "../../errors.js";
import type { Architecture } from "../architecture.js";
import type { DimensionSizes } from "../axes/evaluate.js";
import { PRUNABLE } from "../hyperparameters.js";
import { type Bounds, resolveBounds } from "./bounds.js";
import { type Costs, costPolynomials, layersOf, METRICS, type Metric, type Workload } from "./metrics.js";
import { substitute } from "./polynomial.js";
import { checkReachable, leastCosts, leastCostsOfAnyLayers } from "./reach.js";
import { type SearchSpace, spaceSize } from "./space.js";
import { TopCandidates } from "./topCandidates.js";
import { costsAt, type Geometry, type Limits, type Polynomials, type Sizes, walkSpace } from "./walk.js";

const FIRST_LAYERS_COUNTED = "the layers are of several kinds, and scores decide which stay: costs are counted as if the first ones stayed";

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

/** What can be told of a search before it is known which layers stay. */
export interface SearchOutline {
  readonly parent: Costs;
  readonly space: SearchSpace;
  readonly spaceSize: number;
  /** The bounds as numbers. */
  readonly limits: Limits;
  /** The metric that candidates are sorted by. */
  readonly primary: Metric;
  /** How many subnets meet every bound; undefined where that depends on which layers stay. */
  readonly feasible?: number;
  /** The best of them, the largest first. */
  readonly candidates?: readonly Candidate[];
  readonly warnings: readonly string[];
}

/** What a search found. */
export type SearchResult = Required<SearchOutline>;

/**
 * Walks a whole space and keeps the largest subnets within all bounds.
 *
 * @throws PruneError BAD_CONSTRAINTS that says which bound cannot be met and how near the space comes, or that the filter takes no subnet
 */
export function searchSubnets(architecture: Architecture, space: SearchSpace, bounds: Bounds, options: SearchOptions): SearchResult {
  const { searched, ...framed } = frameSearch(architecture, space, bounds, options);
  const { limits, primary } = framed;
  const geometry = geometryOf(architecture, options.keptLayers);
  const guessed = options.keptLayers === undefined && choosesAmongKinds(architecture, space);
  checkReachable(leastCosts(space, searched, geometry), limits, guessed ? ", if the first layers stay" : "");

  const best = new TopCandidates(options.topK, primary);
  let [within, feasible] = [0, 0];
  walkSpace(space, searched, geometry, limits, (sizes, costs) => {
    within += 1;
    if (options.candidateFilter && !options.candidateFilter({ exportConfig: { ...sizes }, costs: { ...costs } })) return;
    feasible += 1;
    best.offer(sizes, costs);
  });
  if (feasible === 0) {
    const count = within.toLocaleString("en-US");
    throw new PruneError("BAD_CONSTRAINTS", `the candidate filter takes none of the ${count} subnets within the bounds`, {
      hint: "loosen candidateFilter, or allow more",
    });
  }
  const warnings = guessed ? [FIRST_LAYERS_COUNTED] : [];
  return { ...framed, feasible, candidates: best.sorted(), warnings };
}

/**
 * Tells of a space whose subnets cannot be counted yet, because what is still to be measured decides which layers stay.
 *
 * @throws PruneError BAD_CONSTRAINTS that says which bound no choice of layers meets, and how near the space comes
 */
export function outlineSubnets(architecture: Architecture, space: SearchSpace, bounds: Bounds, workload: Workload): SearchOutline {
  const { searched, ...framed } = frameSearch(architecture, space, bounds, workload);
  const least = leastCostsOfAnyLayers(space, searched, geometryOf(architecture), architecture.layers);
  checkReachable(least, framed.limits, ", whichever layers stay");
  return { ...framed, warnings: [] };
}

/** Whether subnets of a space have other costs with other layers. */
export function choosesAmongKinds({ layers }: Architecture, { num_layers }: SearchSpace): boolean {
  return num_layers.length > 1 && new Set(layers).size > 1;
}

type Frame = Omit<SearchResult, "feasible" | "candidates" | "warnings"> & { readonly searched: Polynomials };

function frameSearch(architecture: Architecture, space: SearchSpace, bounds: Bounds, workload: Workload): Frame {
  const polynomials = costPolynomials(architecture, workload);
  const parent = costsAt(polynomials, dimensionsOf(architecture));
  const limits = resolveBounds(bounds, parent);
  const primary = METRICS.find((metric) => limits[metric] !== undefined);
  if (!primary) throw new PruneError("BAD_CONSTRAINTS", "a search needs a bound", { hint: `give at least one of ${METRICS.join(", ")}` });
  const searched = inSearchedDimensions(architecture, space, polynomials);
  return { parent, space, spaceSize: spaceSize(space), limits, primary, searched };
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

function geometryOf({ layers, hyperparameters }: Architecture, keptLayers?: SearchOptions["keptLayers"]): Geometry {
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
