import type { Hyperparameters } from "../hyperparameters.js";
import { type Scores, topPositions } from "../rank.js";

/** What a layer keeps of its channels. */
export interface FfnCut {
  readonly channels: readonly number[];
  /** The sum of the scores that go. */
  readonly cost: number;
}

/** What a layer keeps of its heads: groups, and in each of these as many heads as in the others, by their position within it. */
export interface HeadsCut {
  readonly groups: readonly number[];
  readonly headsOf: Readonly<Record<string, readonly number[]>>;
  /** The sum of the scores that go. */
  readonly cost: number;
}

/** A number of groups, and of heads in each. */
export interface HeadsShape {
  readonly groups: number;
  readonly perGroup: number;
}

/** Keeps the channels that the loss depends on most. */
export function cutFfn(scores: Scores, count: number): FfnCut {
  const channels = topPositions(scores, count);
  return { channels, cost: sumWithout(scores, channels) };
}

/**
 * The ways to keep a number of heads that attention can be computed with, the fewest groups first: those that save most. Heads never move
 * between groups, whose keys and values they read, and each group that stays has as many as the others.
 */
export function headsShapes(count: number, { num_attention_heads: heads, num_query_groups: groups }: HeadSizes): HeadsShape[] {
  const perGroup = heads / groups;
  return Array.from({ length: Math.min(groups, count) }, (_, i) => ({ groups: i + 1, perGroup: count / (i + 1) })).filter(
    (shape) => Number.isInteger(shape.perGroup) && shape.perGroup <= perGroup,
  );
}

export type HeadSizes = Pick<Hyperparameters, "num_attention_heads" | "num_query_groups">;

/** Every number of heads that can be kept, ascending. */
export function headsChoices(sizes: HeadSizes): number[] {
  return Array.from({ length: sizes.num_attention_heads }, (_, i) => i + 1).filter((count) => headsShapes(count, sizes).length > 0);
}

/** Keeps, in a shape, the heads that the loss depends on most: in each group its best, and of the groups those whose best weigh most. */
export function cutHeads(scores: Scores, shape: HeadsShape, groups: number): HeadsCut {
  const all = Array.from(scores);
  const size = all.length / groups;
  const best = Array.from({ length: groups }, (_, group) => {
    const own = all.slice(group * size, (group + 1) * size);
    const heads = topPositions(own, shape.perGroup);
    return { heads, weight: heads.reduce((sum, head) => sum + (own[head] ?? 0), 0) };
  });
  const kept = topPositions(
    best.map(({ weight }) => weight),
    shape.groups,
  );
  const headsOf = (group: number): number[] => best[group]?.heads ?? [];
  return {
    groups: kept,
    headsOf: Object.fromEntries(kept.map((group) => [group, headsOf(group)])),
    cost: sumWithout(
      all,
      kept.flatMap((group) => headsOf(group).map((head) => group * size + head)),
    ),
  };
}

function sumWithout(scores: Scores, kept: readonly number[]): number {
  const staying = new Set(kept);
  return Array.from(scores).reduce((sum, score, position) => (staying.has(position) ? sum : sum + score), 0);
}
