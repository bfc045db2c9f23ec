import { describe, expect, it } from "vitest";
import { cutFfn, cutHeads, headsChoices, headsShapes } from "../../../../src/policy/gradients/cuts.js";
import { mulberry32 } from "../../../fixtures/checkpoints.js";

describe("heads", () => {
  it.each([
    [{ num_attention_heads: 12, num_query_groups: 12 }, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
    [{ num_attention_heads: 6, num_query_groups: 2 }, [1, 2, 3, 4, 6]],
    [{ num_attention_heads: 8, num_query_groups: 1 }, [1, 2, 3, 4, 5, 6, 7, 8]],
  ])("of %o can be kept in numbers that groups can share evenly", (sizes, expected) => {
    expect(headsChoices(sizes)).toEqual(expected);
  });

  it("are kept in as few groups as can be first", () => {
    expect(headsShapes(4, { num_attention_heads: 16, num_query_groups: 4 })).toEqual([
      { groups: 1, perGroup: 4 },
      { groups: 2, perGroup: 2 },
      { groups: 4, perGroup: 1 },
    ]);
    expect(headsShapes(5, { num_attention_heads: 16, num_query_groups: 4 })).toEqual([]);
  });

  it("that stay are the best of all that a shape can have", () => {
    const random = mulberry32(11);
    const [groups, perGroup] = [3, 3];
    for (let round = 0; round < 10; round++) {
      const scores = Float32Array.from({ length: groups * perGroup }, () => random());
      for (const count of headsChoices({ num_attention_heads: 9, num_query_groups: 3 })) {
        for (const shape of headsShapes(count, { num_attention_heads: 9, num_query_groups: 3 })) {
          const cut = cutHeads(scores, shape, groups);
          const kept = cut.groups.flatMap((group) => (cut.headsOf[group] ?? []).map((head) => group * perGroup + head));
          expect(cut.groups).toHaveLength(shape.groups);
          expect(kept).toHaveLength(count);
          expect(cut.cost).toBeCloseTo(leastCost(scores, groups, shape), 5);
        }
      }
    }
  });
});

/** By trying every set of heads. */
function leastCost(scores: Float32Array, groups: number, shape: { groups: number; perGroup: number }): number {
  const size = scores.length / groups;
  let least = Number.POSITIVE_INFINITY;
  for (let set = 0; set < 2 ** scores.length; set++) {
    const held = Array.from({ length: groups }, (_, group) => countBits((set >> (group * size)) & (2 ** size - 1)));
    if (held.some((count) => count !== 0 && count !== shape.perGroup) || held.filter(Boolean).length !== shape.groups) continue;
    const cost = scores.reduce((sum, score, head) => ((set >> head) & 1 ? sum : sum + score), 0);
    least = Math.min(least, cost);
  }
  return least;
}

function countBits(bits: number): number {
  return bits.toString(2).replaceAll("0", "").length;
}

it("channels that stay are those with the highest scores, and the rest is what they cost", () => {
  expect(cutFfn([3, 0.5, 7, 0.25], 2)).toEqual({ channels: [0, 2], cost: 0.75 });
  expect(cutFfn([3, 0.5, 7, 0.25], 4)).toEqual({ channels: [0, 1, 2, 3], cost: 0 });
});
