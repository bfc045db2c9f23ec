import type { Architecture } from "./architecture.js";
import type { Hyperparameters } from "./hyperparameters.js";
import type { Kept } from "./kept.js";
import { type Accumulators, checkedAccumulator, LAYER_SCORES, layerAccumulators } from "./scores.js";

/** What a dimension is ranked by: a score for each of its positions, higher = keep. */
export interface Ranking {
  readonly hidden: () => ArrayLike<number>;
  readonly layers: () => ArrayLike<number>;
  readonly ffn: (layer: number) => ArrayLike<number>;
  /** L2 norms over the channels of each head, in group-major order. */
  readonly heads: (layer: number) => ArrayLike<number>;
  readonly groups: (layer: number) => ArrayLike<number>;
}

/** Minitron's scores (arXiv 2407.14679, section 2.2), read from accumulators when asked for. */
export function rankByActivation(architecture: Architecture, scores: Accumulators): Ranking {
  const { num_layers, hidden_size, num_attention_heads, num_query_groups } = architecture.hyperparameters;
  const attention = (layer: number, parts: number): number[] => {
    const [channels = new Float32Array()] = layerAccumulators(architecture, scores, "attention", layer);
    return l2OverBlocks(channels, parts);
  };
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
    ffn: (layer) => layerAccumulators(architecture, scores, "ffn", layer)[0] ?? [],
    heads: (layer) => attention(layer, num_attention_heads),
    groups: (layer) => attention(layer, num_query_groups),
  };
}

/** The ranking under which the first positions of every dimension win: for parents that are sorted by importance. */
export function rankByPosition({ hyperparameters }: Architecture): Ranking {
  const falling = (length: number): number[] => Array.from({ length }, (_, position) => -position);
  return {
    hidden: () => falling(hyperparameters.hidden_size),
    layers: () => falling(hyperparameters.num_layers),
    ffn: () => falling(hyperparameters.ffn_hidden_size),
    heads: () => falling(hyperparameters.num_attention_heads),
    groups: () => falling(hyperparameters.num_query_groups),
  };
}

/** The L2 norm of sqrt(A) over each of `parts` equal stretches: the square root of their sums. */
function l2OverBlocks(accumulator: Float32Array, parts: number): number[] {
  const length = accumulator.length / parts;
  return Array.from({ length: parts }, (_, part) => {
    let sum = 0;
    for (let i = part * length; i < (part + 1) * length; i++) sum += accumulator[i] ?? 0;
    return Math.sqrt(sum);
  });
}

/** The positions of the n highest scores, ties to the lower one, in ascending order. */
export function topPositions(scores: ArrayLike<number>, n: number): number[] {
  const order = Array.from({ length: scores.length }, (_, position) => position);
  order.sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
  return order.slice(0, n).sort((a, b) => a - b);
}

/**
 * Chooses what to keep: layers of the whole model, hidden channels of the whole model, FFN channels of each kept layer, and groups first,
 * then the same number of heads inside each kept group. Dimensions whose size does not change are left out.
 */
export function chooseKept(parent: Hyperparameters, child: Hyperparameters, ranking: Ranking): Kept {
  const layers = child.num_layers < parent.num_layers ? topPositions(ranking.layers(), child.num_layers) : undefined;
  const everyLayer = layers ?? Array.from({ length: parent.num_layers }, (_, layer) => layer);
  const perGroup = parent.num_attention_heads / parent.num_query_groups;
  const keptPerGroup = child.num_attention_heads / child.num_query_groups;
  const inLayers = <T>(choose: (layer: number) => T): Record<string, T> =>
    Object.fromEntries(everyLayer.map((layer) => [layer, choose(layer)]));
  const groups =
    child.num_query_groups < parent.num_query_groups
      ? inLayers((layer) => topPositions(ranking.groups(layer), child.num_query_groups))
      : undefined;
  const everyGroup = Array.from({ length: parent.num_query_groups }, (_, group) => group);
  const headsWithin = (layer: number): Record<string, number[]> => {
    const scores = Array.from(ranking.heads(layer));
    const kept = groups?.[layer] ?? everyGroup;
    return Object.fromEntries(
      kept.map((group) => [group, topPositions(scores.slice(group * perGroup, (group + 1) * perGroup), keptPerGroup)]),
    );
  };
  return {
    ...(layers && { layer: layers }),
    ...(child.hidden_size < parent.hidden_size && { hidden: topPositions(ranking.hidden(), child.hidden_size) }),
    ...(child.ffn_hidden_size < parent.ffn_hidden_size && {
      ffn: inLayers((layer) => topPositions(ranking.ffn(layer), child.ffn_hidden_size)),
    }),
    ...(groups && { group: groups }),
    ...(keptPerGroup < perGroup && { heads_of_group: inLayers(headsWithin) }),
  };
}
