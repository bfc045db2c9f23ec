import type { Architecture } from "../architecture.js";
import { type ArchitectureRow, architectureRows } from "../tensors.js";
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
  /** What flops are counted for, where that is another shape. */
  readonly flopsOf?: { readonly seqLength: number; readonly batchSize: number } | undefined;
}

// ModelOpt counts weights, caches and states in bfloat16.
const BYTES_PER_VALUE = 2;
const MIB = 1 << 20;

// Of a Mamba state, for each token: what x adds to it, and what C reads of it.
const STATE_PASSES = 2;

/** The dimension that counts the layers of a kind: how many there are follows from which layers stay, not from a size alone. */
export function layersOf(kind: string): string {
  return `layers of ${kind}`;
}

/**
 * The closed forms of an architecture's costs, from its family's table: `params` is the sum over all tensors; `active_params` that over what
 * one token passes, without buffers; `memory_mb` 2 bytes for each parameter, for each key and value of the cache, and for each element of a
 * Mamba layer's states; `flops` twice the multiply-accumulates of all matrices, of both attention products and of the state updates.
 */
export function costPolynomials(architecture: Architecture, workload: Workload): Readonly<Record<Metric, Polynomial>> {
  const { seqLength, batchSize, flopsOf = workload } = workload;
  const tokens = flopsOf.seqLength * flopsOf.batchSize;
  const kinds = [...new Set(architecture.layers)];
  const topk = constant(architecture.hyperparameters.moe_router_topk ?? 1);
  const rows = architectureRows(architecture).map((row) => {
    const layers = row.perLayer ? layerCount(kinds.filter((kind) => row.on?.includes(kind) ?? true)) : constant(1);
    const { experts, each } = elementsOf(row);
    return { row, all: multiply(layers, multiply(experts, each)), active: multiply(layers, multiply(row.routed ? topk : experts, each)) };
  });
  const counted = rows.filter(({ row }) => !row.shared);
  const parameters = counted.filter(({ row }) => !row.buffer);
  const passes = ({ oncePerSequence }: ArchitectureRow): number => (oncePerSequence ? flopsOf.batchSize : tokens);
  const multiplied = sum(...rows.filter(({ row }) => row.multiplies).map(({ row, active }) => scale(active, passes(row))));
  const attention = layerCount(kinds.filter((kind) => ["decoder", "dense", "sparse", "attention"].includes(kind)));
  const cache = scale(multiply(attention, product("group", "head_dim")), 2 * seqLength * batchSize);
  const scores = scale(multiply(attention, product("group", "heads_of_group", "head_dim")), 2 * tokens * flopsOf.seqLength);
  const { state, convolution } = mambaStates(kinds);
  return {
    params: sum(...counted.map(({ all }) => all)),
    active_params: sum(...parameters.map(({ active }) => active)),
    memory_mb: scale(sum(...parameters.map(({ all }) => all), cache, scale(sum(state, convolution), batchSize)), BYTES_PER_VALUE / MIB),
    flops: scale(sum(multiplied, scores, scale(state, STATE_PASSES * tokens)), 2),
  };
}

/** The elements of a row in one layer, apart from the number of experts. */
function elementsOf(row: ArchitectureRow): { experts: Polynomial; each: Polynomial } {
  const packed = row.routed && !row.perExpert;
  const axes = packed ? row.axes.slice(1) : row.axes;
  return { experts: row.routed ? product("expert") : constant(1), each: axes.map(axisPolynomial).reduce(multiply, constant(1)) };
}

function layerCount(kinds: readonly string[]): Polynomial {
  return sum(...kinds.map((kind) => product(layersOf(kind))));
}

/** What a Mamba layer keeps of each sequence: a state for each head, and the inputs of the convolution that reach the next token. */
function mambaStates(kinds: readonly string[]): { state: Polynomial; convolution: Polynomial } {
  if (!kinds.includes("mamba")) return { state: [], convolution: [] };
  const layers = product(layersOf("mamba"));
  const channels = product("mamba_group", "mamba_heads_of_group", "mamba_head_dim");
  const convolved = sum(channels, scale(product("mamba_group", "mamba_state"), 2));
  const reach = sum(product("conv_kernel"), constant(-1));
  return { state: multiply(layers, multiply(channels, product("mamba_state"))), convolution: multiply(layers, multiply(convolved, reach)) };
}
