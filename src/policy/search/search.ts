import { PruneError } from "../../errors.js";
import { type Architecture, withHyperparameters } from "../architecture.js";
import type { DimensionSizes } from "../axes/evaluate.js";
import type { Hyperparameters } from "../hyperparameters.js";
import { type Bounds, resolveBounds } from "./bounds.js";
import { type Costs, costPolynomials, METRICS, type Metric, type Workload } from "./metrics.js";
import { evaluate, type Polynomial, substitute } from "./polynomial.js";
import { SEARCHED, type SearchedName, type SearchSpace, spaceSize } from "./space.js";

/** Sizes of the searched hyperparameters, and what a subnet of these sizes costs. */
export interface Candidate {
  readonly exportConfig: Readonly<Record<SearchedName, number>>;
  readonly costs: Costs;
}

/** How candidates are chosen from a space. */
export interface SearchOptions extends Workload {
  readonly topK: number;
  /** Leaves out a candidate where it returns false. */
  readonly candidateFilter?: ((candidate: Candidate) => boolean) | undefined;
}

/** What a search found. */
export interface SearchResult {
  readonly parent: Costs;
  readonly space: SearchSpace;
  readonly spaceSize: number;
  /** The metric that candidates are sorted by. */
  readonly primary: Metric;
  /** How many subnets meet every bound. */
  readonly feasible: number;
  /** The best of them, the largest first. */
  readonly candidates: readonly Candidate[];
}

/**
 * Walks a whole space and keeps the largest subnets within all bounds.
 *
 * @throws PruneError BAD_CONSTRAINTS that says which bound cannot be met and how near the space comes
 */
export function searchSubnets(architecture: Architecture, space: SearchSpace, bounds: Bounds, options: SearchOptions): SearchResult {
  const polynomials = costPolynomials(architecture, options);
  const parent = costsAt(polynomials, architecture.sizes);
  const limits = resolveBounds(bounds, parent);
  const primary = METRICS.find((metric) => limits[metric] !== undefined);
  if (!primary) throw new PruneError("BAD_CONSTRAINTS", "a search needs a bound", { hint: `give at least one of ${METRICS.join(", ")}` });
  checkReachable(architecture, space, polynomials, limits);

  const best = new TopCandidates(options.topK, primary);
  let feasible = 0;
  walk(architecture, space, polynomials, limits, (exportConfig, costs) => {
    if (options.candidateFilter && !options.candidateFilter({ exportConfig: { ...exportConfig }, costs: { ...costs } })) return;
    feasible += 1;
    best.offer(exportConfig, costs);
  });
  if (feasible === 0) {
    throw new PruneError("BAD_CONSTRAINTS", "each bound can be met by itself, but no candidate of the space meets all of them", {
      hint: "raise a bound, max_width_pruning or max_depth_pruning, or loosen the candidate filter",
    });
  }
  return { parent, space, spaceSize: spaceSize(space), primary, feasible, candidates: best.sorted() };
}

type Polynomials = Readonly<Record<Metric, Polynomial>>;
type Limits = Readonly<Partial<Record<Metric, number>>>;
type Sizes = Record<SearchedName, number>;
type MutableCosts = Record<Metric, number>;

/** The costs of an architecture itself. */
export function costsOf(architecture: Architecture, workload: Workload): Costs {
  return costsAt(costPolynomials(architecture, workload), architecture.sizes);
}

function costsAt(polynomials: Polynomials, sizes: DimensionSizes): Costs {
  return {
    active_params: evaluate(polynomials.active_params, sizes),
    params: evaluate(polynomials.params, sizes),
    memory_mb: evaluate(polynomials.memory_mb, sizes),
    flops: evaluate(polynomials.flops, sizes),
  };
}

// Every cost grows with every size, so the smallest subnet is the nearest to any bound.
function checkReachable(architecture: Architecture, space: SearchSpace, polynomials: Polynomials, limits: Limits): void {
  const smallest = Object.fromEntries(SEARCHED.map((name) => [name, space[name][0] ?? 0])) as Sizes;
  const least = costsAt(polynomials, sizesWith(architecture, smallest));
  for (const metric of METRICS) {
    const limit = limits[metric];
    if (limit === undefined || least[metric] <= limit) continue;
    throw new PruneError(
      "BAD_CONSTRAINTS",
      `${metric} <= ${format(limit)} cannot be met: the smallest subnet of the space has ${format(least[metric])}`,
      { hint: "raise max_width_pruning or max_depth_pruning, search more hyperparameters, or allow more" },
    );
  }
}

function sizesWith(architecture: Architecture, sizes: Sizes): DimensionSizes {
  const hyperparameters: Hyperparameters = { ...architecture.hyperparameters, ...sizes };
  return withHyperparameters(architecture, hyperparameters).sizes;
}

/**
 * Visits every candidate within the limits. In its innermost loop, over FFN widths, a cost is a straight line: two numbers each, worked out
 * once for each choice of the other sizes.
 */
function walk(
  architecture: Architecture,
  space: SearchSpace,
  polynomials: Polynomials,
  limits: Limits,
  visit: (sizes: Sizes, costs: MutableCosts) => void,
): void {
  const most = METRICS.map((metric) => limits[metric] ?? Number.POSITIVE_INFINITY);
  const costs: MutableCosts = { active_params: 0, params: 0, memory_mb: 0, flops: 0 };
  for (const num_layers of space.num_layers) {
    for (const hidden_size of space.hidden_size) {
      for (const num_attention_heads of space.num_attention_heads) {
        const sizes: Sizes = { num_layers, hidden_size, num_attention_heads, ffn_hidden_size: 0 };
        const { ffn: _, ...others } = sizesWith(architecture, sizes);
        const lines = METRICS.map((metric) => lineIn(substitute(polynomials[metric], others)));
        for (const ffn of space.ffn_hidden_size) {
          let within = true;
          for (let m = 0; m < METRICS.length && within; m++) {
            const [at0 = 0, slope = 0] = lines[m] ?? [];
            const cost = at0 + slope * ffn;
            costs[METRICS[m] as Metric] = cost;
            within = cost <= (most[m] as number);
          }
          if (!within) continue;
          sizes.ffn_hidden_size = ffn;
          visit(sizes, costs);
        }
      }
    }
  }
}

function lineIn(polynomial: Polynomial): [at0: number, slope: number] {
  return [
    evaluate(
      polynomial.filter(({ dimensions }) => dimensions.length === 0),
      {},
    ),
    evaluate(
      polynomial.filter(({ dimensions }) => dimensions.length > 0),
      { ffn: 1 },
    ),
  ];
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
