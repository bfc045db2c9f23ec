import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hyperparametersOf, makeDivisible } from "../../../../src/policy/network/choices.js";
import type { NetworkAxis } from "../../../../src/policy/network/facts.js";
import { keepChannels, keptLength, keptPositions } from "../../../../src/policy/network/keptChannels.js";
import { group } from "../../../fixtures/residualNetwork.js";

const conv = (module: string) => ({ module, kind: "nn.Conv2d", attribute: "out_channels" }) as const;

describe("choices", () => {
  it.each([
    [100, 32, 96],
    [10, 32, 32],
    [47, 32, 64],
    [4.8, 8, 8],
    [84, 8, 88],
  ])("of %d by %d are %d", (value, divisor, expected) => {
    expect(makeDivisible(value, divisor)).toBe(expected);
  });

  it("of channels that several modules give are those of all of them, and none where one stays", () => {
    const tied = group(64, [conv("a"), conv("b")]);
    const rule = (divisors: Record<string, number | null>) => (output: { module: string }) => {
      const divisor = divisors[output.module];
      return divisor === null || divisor === undefined ? null : { ratios: [0.25, 0.5, 0.75, 1], divisor };
    };
    expect(hyperparametersOf([tied], rule({ a: 16, b: 32 }))).toEqual([{ name: "a.out_channels", group: 0, choices: [32, 64] }]);
    expect(hyperparametersOf([tied], rule({ a: 16, b: null }))).toEqual([]);
    expect(hyperparametersOf([{ ...tied, fixed: true }], rule({ a: 16, b: 16 }))).toEqual([]);
  });

  it("are multiples of the sections", () => {
    const [found] = hyperparametersOf([{ ...group(48, [conv("a")]), sections: 6 }], () => ({ ratios: [0.3, 0.6, 0.9], divisor: 4 }));
    expect(found?.choices).toEqual([24, 36, 48]);
  });
});

describe("kept channels", () => {
  it("are the most important, as many of each section", () => {
    const importance = Float64Array.from([9, 1, 8, 7, 2, 3, 6, 5]);
    const channels = { ...group(8, [conv("a")]), importance };
    expect(keepChannels(channels, 4)).toEqual([0, 2, 3, 6]);
    expect(keepChannels({ ...channels, sections: 2 }, 4)).toEqual([0, 2, 6, 7]);
    expect(keepChannels(channels, 8)).toBeUndefined();
  });

  it("give positions of flattened and concatenated axes", () => {
    const axis: NetworkAxis = [
      { group: 0, begin: 0, end: 2, repeat: 3 },
      { fixed: 1 },
      { group: 0, begin: 2, end: 4, repeat: 1 },
      { group: 1, begin: 0, end: 2, repeat: 1 },
    ];
    expect(keptPositions(axis, [[1, 2], undefined])).toEqual([3, 4, 5, 6, 7, 9, 10]);
    expect(keptPositions(axis, [undefined, undefined])).toBeUndefined();
  });

  it("are as many as they are counted", () => {
    const part = fc.oneof(
      fc.record({ fixed: fc.nat(3) }),
      fc
        .tuple(fc.nat(1), fc.nat(6), fc.nat(6), fc.integer({ min: 1, max: 3 }))
        .map(([index, a, b, repeat]) => ({ group: index, begin: Math.min(a, b), end: Math.max(a, b), repeat })),
    );
    const kept = fc.option(fc.subarray([0, 1, 2, 3, 4, 5]), { nil: undefined });
    fc.assert(
      fc.property(fc.array(part), kept, kept, (axis, first, second) => {
        const all = keptLength(axis, [undefined, undefined]);
        expect(keptPositions(axis, [first, second])?.length ?? all).toBe(keptLength(axis, [first, second]));
      }),
    );
  });
});
