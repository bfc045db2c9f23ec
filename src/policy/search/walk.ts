import { PRUNABLE } from "../hyperparameters.js";
import { type Costs, layersOf, METRICS, type Metric } from "./metrics.js";
import { evaluate, type Polynomial, substitute } from "./polynomial.js";
import type { BySearchedName, SearchedName, SearchSpace } from "./space.js";

export type Polynomials = Readonly<Record<Metric, Polynomial>>;
/** An upper bound for each metric that has one. */
export type Limits = Readonly<Partial<Record<Metric, number>>>;
/** Sizes of the searched hyperparameters. */
export type Sizes = BySearchedName<number>;
export type MutableCosts = Record<Metric, number>;

/** What turns sizes of hyperparameters into sizes of dimensions. */
export interface Geometry {
  /** Query groups and groups of Mamba heads: dimensions are heads of one group. */
  readonly groups: Readonly<Partial<Record<SearchedName, number>>>;
  /** How many layers of each kind a number of layers has. */
  readonly layerCounts: (layers: number) => Readonly<Record<string, number>>;
}

/** The size of the dimension that a hyperparameter stands for; for layers, of each kind. */
export function dimensionsAt(geometry: Geometry, name: SearchedName, size: number): Record<string, number> {
  if (name !== "num_layers") return { [PRUNABLE[name]]: size / (geometry.groups[name] ?? 1) };
  const counts = geometry.layerCounts(size);
  return { layer: size, ...Object.fromEntries(Object.entries(counts).map(([kind, count]) => [layersOf(kind), count])) };
}

/** All costs at sizes of every dimension. */
export function costsAt(polynomials: Polynomials, dimensions: Readonly<Record<string, number>>): Costs {
  return {
    active_params: evaluate(polynomials.active_params, dimensions),
    params: evaluate(polynomials.params, dimensions),
    memory_mb: evaluate(polynomials.memory_mb, dimensions),
    flops: evaluate(polynomials.flops, dimensions),
  };
}

/**
 * Visits every candidate of a space within the limits. The hyperparameter with the most choices is walked innermost, where a cost is a
 * straight line in it: two numbers each, worked out once for each choice of the other sizes.
 *
 * @param polynomials - costs in the searched dimensions alone
 */
export function walkSpace(
  space: SearchSpace,
  polynomials: Polynomials,
  geometry: Geometry,
  limits: Limits,
  visit: (sizes: Sizes, costs: MutableCosts) => void,
): void {
  const names = walkOrder(space);
  const innermost = names.at(-1) as SearchedName; // every space has layers and hidden channels
  const sizes: Sizes = { num_layers: 0, hidden_size: 0, num_attention_heads: 0 };
  const walkInner = innerWalk(innermost, space[innermost] ?? [], geometry, limits, sizes, visit);
  const descend = (depth: number, costs: readonly Polynomial[]): void => {
    const name = names[depth] as SearchedName;
    if (name === innermost) {
      walkInner(costs);
      return;
    }
    for (const size of space[name] ?? []) {
      sizes[name] = size;
      const dimensions = dimensionsAt(geometry, name, size);
      descend(
        depth + 1,
        costs.map((cost) => substitute(cost, dimensions)),
      );
    }
  };
  descend(
    0,
    METRICS.map((metric) => polynomials[metric]),
  );
}

/** The order of the loops. Layers never go innermost: their costs depend on which kinds they are of. */
function walkOrder(space: SearchSpace): SearchedName[] {
  const names = Object.keys(space) as SearchedName[];
  const widths = names.filter((name) => name !== "num_layers");
  const most = widths.reduce((best, name) => ((space[name]?.length ?? 0) >= (space[best]?.length ?? 0) ? name : best));
  return [...names.filter((name) => name !== most), most];
}

function innerWalk(
  name: SearchedName,
  choices: readonly number[],
  geometry: Geometry,
  limits: Limits,
  sizes: Sizes,
  visit: (sizes: Sizes, costs: MutableCosts) => void,
): (costs: readonly Polynomial[]) => void {
  const most = METRICS.map((metric) => limits[metric] ?? Number.POSITIVE_INFINITY) as [number, number, number, number];
  const per = geometry.groups[name] ?? 1;
  const costs: MutableCosts = { active_params: 0, params: 0, memory_mb: 0, flops: 0 };
  return (polynomials) => {
    const [active, params, memory, flops] = polynomials.map(lineIn) as [Line, Line, Line, Line];
    for (const size of choices) {
      const x = size / per;
      costs.active_params = active.at0 + active.slope * x;
      costs.params = params.at0 + params.slope * x;
      costs.memory_mb = memory.at0 + memory.slope * x;
      costs.flops = flops.at0 + flops.slope * x;
      if (costs.active_params > most[0] || costs.params > most[1] || costs.memory_mb > most[2] || costs.flops > most[3]) continue;
      sizes[name] = size;
      visit(sizes, costs);
    }
  };
}

interface Line {
  readonly at0: number;
  readonly slope: number;
}

/** What is left of a cost when all dimensions but one have sizes: no family's table has a dimension twice in one tensor. */
function lineIn(polynomial: Polynomial): Line {
  let [at0, slope] = [0, 0];
  for (const { factor, dimensions } of polynomial) {
    if (dimensions.length === 0) at0 += factor;
    else if (dimensions.length === 1) slope += factor;
    else throw new RangeError(`a cost is no line in ${dimensions[0]}`);
  }
  return { at0, slope };
}
