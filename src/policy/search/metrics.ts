import type { Architecture } from "../architecture.js";
import { architectureRows } from "../tensors.js";
import { axisPolynomial, constant, multiply, type Polynomial, product, scale, sum } from "./polynomial.js";

/** What a subnet costs, in the order in which candidates are sorted by. */
export const METRICS = ["active_params", "params", "memory_mb", "flops"] as const;

export type Metric = (typeof METRICS)[number];

/** A value for each metric. `memory_mb` is in MiB; `flops` is for the whole batch. */
export type Costs = Readonly<Record<Metric, number>>;

/** What memory and flops are counted for. */
export interface Workload {
  /** Tokens of a sequence. */
  readonly seqLength: number;
  /** Sequences of a batch. */
  readonly batchSize: number;
}

// ModelOpt counts weights and caches in bfloat16.
const BYTES_PER_VALUE = 2;
const MIB = 1 << 20;

/**
 * The closed forms of an architecture's costs, from its family's table: `params` is the sum over all tensors; `memory_mb` 2 bytes for each
 * and for each key and value of the cache; `flops` twice the multiply-accumulates of all linear layers and of both attention products.
 */
export function costPolynomials(architecture: Architecture, { seqLength, batchSize }: Workload): Readonly<Record<Metric, Polynomial>> {
  const tokens = seqLength * batchSize;
  const rows = architectureRows(architecture).map((row) => {
    const elements = row.axes.map(axisPolynomial).reduce(multiply, constant(1));
    return { row, elements: row.perLayer ? multiply(elements, product("layer")) : elements };
  });
  const params = sum(...rows.filter(({ row }) => !row.shared).map(({ elements }) => elements));
  const linear = sum(...rows.filter(({ row }) => row.axes.length === 2 && !row.lookup).map(({ elements }) => elements));
  const cache = scale(product("layer", "group", "head_dim"), 2 * tokens);
  const attention = scale(product("layer", "group", "heads_of_group", "head_dim"), 2 * tokens * seqLength);
  return {
    params,
    active_params: params,
    memory_mb: scale(sum(params, cache), BYTES_PER_VALUE / MIB),
    flops: scale(sum(scale(linear, tokens), attention), 2),
  };
}
