import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readArchitecture } from "../../../src/policy/architecture.js";
import { makePlan } from "../../../src/policy/plan.js";
import { rankByActivation, rankByPosition, topPositions } from "../../../src/policy/rank.js";
import type { Accumulators } from "../../../src/policy/scores.js";
import { asFloat32 } from "../../../src/tensor.js";
import { plantedScores, TINY_LLAMA } from "../../fixtures/checkpoints.js";

const ARCHITECTURE = readArchitecture(TINY_LLAMA);

function planted(importance: (name: string, position: number) => number): Accumulators {
  return new Map(plantedScores(TINY_LLAMA, importance).map((tensor) => [tensor.name, { shape: tensor.shape, data: asFloat32(tensor) }]));
}

function keep(exportConfig: unknown, importance: (name: string, position: number) => number): ReturnType<typeof makePlan>["kept"] {
  return makePlan(ARCHITECTURE, TINY_LLAMA, exportConfig, rankByActivation(ARCHITECTURE, planted(importance))).kept;
}

describe("topPositions", () => {
  it("gives ties to the lower position, in the original order", () => {
    expect(topPositions([1, 3, 3, 0, 3, 1], 4)).toEqual([0, 1, 2, 4]);
  });

  it("keeps what sorting would, of scores that are alike, in order or in reverse", () => {
    const scores = fc.oneof(
      fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 60 }),
      fc.array(fc.double({ noNaN: true }), { minLength: 1, maxLength: 60 }),
      fc.nat(60).map((n) => Array.from({ length: n + 1 }, (_, i) => i)),
      fc.nat(60).map((n) => Array.from({ length: n + 1 }, (_, i) => -i)),
    );
    fc.assert(
      fc.property(scores, fc.nat(), (given, cut) => {
        const n = 1 + (cut % given.length);
        const order = [...given.keys()].sort((a, b) => (given[b] ?? 0) - (given[a] ?? 0) || a - b);
        expect(topPositions(given, n)).toEqual(order.slice(0, n).sort((a, b) => a - b));
      }),
      { numRuns: 500 },
    );
  });

  it("keeps nothing that scores less than what it drops", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1 }), fc.nat(), (scores, cut) => {
        const kept = topPositions(scores, 1 + (cut % scores.length));
        const dropped = scores.filter((_, i) => !kept.includes(i));
        expect(Math.min(...kept.map((i) => scores[i] ?? 0))).toBeGreaterThanOrEqual(Math.max(0, ...dropped));
        expect(kept).toEqual([...kept].sort((a, b) => a - b));
      }),
    );
  });
});

describe("what is kept", () => {
  it("ranks the FFN channels of each layer by themselves", () => {
    const kept = keep({ ffn_hidden_size: 2 }, (name, i) =>
      name.endsWith(".mlp") && i === 10 + Number(name.split(".")[2]) ? 5 : i === 3 ? 2 : 0,
    );
    expect(kept).toEqual({ ffn: { "0": [3, 10], "1": [3, 11], "2": [3, 12] } });
  });

  it("reads groups group-major: a group's channels are its heads' in a row", () => {
    // Heads 2 and 3, of the 2 heads in each of 3 groups, are group 1: channels 16 to 31.
    const kept = keep({ num_query_groups: 1 }, (name, i) => (name.endsWith(".self_attention") && i >= 16 && i < 32 ? 1 : 0.9));
    expect(kept).toEqual({ group: { "0": [1], "1": [1], "2": [1] } });
  });

  it("keeps as many heads in every group, the best of each", () => {
    const best = [0, 3, 5];
    const kept = keep({ num_attention_heads: 3 }, (_, i) => (best.includes(Math.floor(i / 8)) ? 1 : 0.5));
    expect(kept.heads_of_group).toMatchObject({ "0": { "0": [0], "1": [1], "2": [1] } });
    expect(kept.group).toBeUndefined();
  });

  it("chooses groups first, then heads inside of them", () => {
    // Head 5 is the best of all, but its group is the weakest.
    const heads = [4, 4, 5, 3, 0, 5.5];
    const kept = keep({ num_attention_heads: 2, num_query_groups: 2 }, (_, i) => (heads[Math.floor(i / 8)] ?? 0) ** 2);
    expect(kept.group).toMatchObject({ "1": [0, 1] });
    expect(kept.heads_of_group).toMatchObject({ "1": { "0": [0], "1": [0] } });
  });

  it("sums the square roots of every norm for hidden channels", () => {
    // Channel 0 is large in one norm; channel 1 is moderate in all six, and larger in the sum of roots.
    const kept = keep({ hidden_size: 1 }, (name, i) => (i === 1 ? 4 : i === 0 && name === "decoder.layers.0.input_layernorm" ? 100 : 0));
    expect(kept).toEqual({ hidden: [1] });
  });

  it("keeps the layers that change their input most, in order", () => {
    expect(keep({ num_layers: 2 }, (name, i) => (name === "layer_scores" ? ([0.3, 0.1, 0.2][i] ?? 0) : 0))).toEqual({ layer: [0, 2] });
  });

  it("leaves whole what is not named", () => {
    expect(keep({ ffn_hidden_size: 40, num_layers: 2 }, () => 1)).toEqual({ layer: [0, 1] });
  });

  it("takes the first positions of a sorted parent", () => {
    const { kept } = makePlan(ARCHITECTURE, TINY_LLAMA, { hidden_size: 3, num_query_groups: 2 }, rankByPosition(ARCHITECTURE));
    expect(kept).toEqual({ hidden: [0, 1, 2], group: { "0": [0, 1], "1": [0, 1], "2": [0, 1] } });
  });
});
