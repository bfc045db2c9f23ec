import type { Architecture } from "./architecture.js";
import { type Accumulators, checkedAccumulator, expertAccumulator, LAYER_SCORES, layerAccumulators } from "./scores.js";

/** Scores of positions, higher = keep. */
export type Scores = ArrayLike<number>;

/** What each dimension is ranked by: a score for each of its positions. */
export interface Ranking {
  readonly hidden: () => Scores;
  readonly layers: () => Scores;
  readonly ffn: (layer: number) => Scores;
  /** L2 norms over the channels of each head, in group-major order. */
  readonly heads: (layer: number) => Scores;
  readonly groups: (layer: number) => Scores;
  readonly experts: (layer: number) => Scores;
  readonly expertFfn: (layer: number, expert: number) => Scores;
  readonly sharedExpertFfn: (layer: number) => Scores;
  /** L2 norms over all heads of each channel of a head. */
  readonly mambaHeadDims: (layer: number) => Scores;
  /** L2 norms over the channels of each head that stay, in group-major order. */
  readonly mambaHeads: (layer: number, channels: readonly number[]) => Scores;
}

// The reference divides by the number of routed tokens and this, so that an expert without a token scores 0.
const NO_TOKENS = 1e-8;

/** Minitron's scores (arXiv 2407.14679, section 2.2; for Mamba 2504.11409), read from accumulators when asked for. */
export function rankByActivation(architecture: Architecture, scores: Accumulators): Ranking {
  const { num_layers, hidden_size, num_attention_heads, num_query_groups, mamba_head_dim = 1 } = architecture.hyperparameters;
  const only = (importance: Parameters<typeof layerAccumulators>[2], layer: number): Float32Array =>
    layerAccumulators(architecture, scores, importance, layer)[0] ?? new Float32Array();
  return {
    hidden: () => {
      const total = new Float64Array(hidden_size);
      for (let layer = 0; layer < num_layers; layer++) {
        for (const norm of layerAccumulators(architecture, scores, "hidden", layer)) {
          for (let c = 0; c < hidden_size; c++) total[c] = (total[c] ?? 0) + Math.sqrt(norm[c] ?? 0);
        }
      }
      return total;
    },
    layers: () => checkedAccumulator(scores, LAYER_SCORES, num_layers),
    // sqrt keeps the order, so the accumulator itself ranks.
    ffn: (layer) => only("ffn", layer),
    heads: (layer) => l2OverBlocks(only("attention", layer), num_attention_heads),
    groups: (layer) => l2OverBlocks(only("attention", layer), num_query_groups),
    experts: (layer) => {
      const tokens = only("expert_tokens", layer);
      return Array.from(only("expert_norm", layer), (norm, expert) => norm / ((tokens[expert] ?? 0) + NO_TOKENS));
    },
    expertFfn: (layer, expert) => expertAccumulator(architecture, scores, layer, expert),
    sharedExpertFfn: (layer) => only("moe_shared_ffn", layer),
    mambaHeadDims: (layer) => {
      const channels = only("mamba", layer);
      return sumWhere(channels, mamba_head_dim, (channel) => channel % mamba_head_dim);
    },
    mambaHeads: (layer, kept) => {
      const channels = only("mamba", layer);
      const staying = new Set(kept);
      return sumWhere(channels, channels.length / mamba_head_dim, (channel) =>
        staying.has(channel % mamba_head_dim) ? Math.floor(channel / mamba_head_dim) : undefined,
      );
    },
  };
}

/** The ranking under which the first positions of every dimension win: for parents that are sorted by importance. */
export function rankByPosition({ hyperparameters: h }: Architecture): Ranking {
  const longest = Math.max(...Object.values(h));
  const all = Float64Array.from({ length: longest }, (_, position) => -position);
  const falling = (length = 0): Scores => all.subarray(0, length);
  return {
    hidden: () => falling(h.hidden_size),
    layers: () => falling(h.num_layers),
    ffn: () => falling(h.ffn_hidden_size),
    heads: () => falling(h.num_attention_heads),
    groups: () => falling(h.num_query_groups),
    experts: () => falling(h.num_moe_experts),
    expertFfn: () => falling(h.moe_ffn_hidden_size),
    sharedExpertFfn: () => falling(h.moe_shared_expert_intermediate_size),
    mambaHeadDims: () => falling(h.mamba_head_dim),
    mambaHeads: () => falling(h.mamba_num_heads),
  };
}

/** The L2 norm of sqrt(A) over each of `parts` equal stretches: the square root of their sums. */
function l2OverBlocks(accumulator: Float32Array, parts: number): number[] {
  const length = accumulator.length / parts;
  return sumWhere(accumulator, parts, (channel) => Math.floor(channel / length)).map(Math.sqrt);
}

/** Sums an accumulator into parts; channels that belong to none are left out. */
function sumWhere(accumulator: Float32Array, parts: number, partOf: (channel: number) => number | undefined): number[] {
  const sums = new Array<number>(parts).fill(0);
  for (const [channel, value] of accumulator.entries()) {
    const part = partOf(channel);
    if (part !== undefined) sums[part] = (sums[part] ?? 0) + value;
  }
  return sums;
}

/** The positions of the n highest scores, ties to the lower one, in ascending order. */
export function topPositions(scores: Scores, n: number): number[] {
  if (n >= scores.length) return Array.from({ length: scores.length }, (_, position) => position);
  const values = new Float64Array(scores);
  const least = nthHighest(values.slice(), n);
  let ties = n;
  for (const score of values) if (score > least) ties -= 1;
  const top: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const score = values[i] ?? 0;
    if (score > least || (score === least && ties-- > 0)) top.push(i);
  }
  return top;
}

/** The n-th highest of more than n values, which it reorders (Hoare's selection): sorting the FFN channels of 126 layers takes seconds. */
function nthHighest(values: Float64Array, n: number): number {
  const at = (i: number): number => values[i] ?? 0; // i stays within the values
  const target = n - 1;
  for (let [low, high] = [0, values.length - 1]; low < high; ) {
    const pivot = at((low + high) >> 1);
    let [i, j] = [low, high];
    while (i <= j) {
      while (at(i) > pivot) i += 1;
      while (at(j) < pivot) j -= 1;
      if (i > j) break;
      const higher = at(j);
      values[j] = at(i);
      values[i] = higher;
      i += 1;
      j -= 1;
    }
    if (target <= j) high = j;
    else if (target >= i) low = i;
    else break;
  }
  return at(target);
}
