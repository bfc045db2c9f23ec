import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { axisSize, keptPositions } from "../../../src/policy/axes/evaluate.js";
import { dimensionsOf, parseAxis } from "../../../src/policy/axes/expression.js";

const SIZES = { group: 3, heads_of_group: 2, head_dim: 4, ffn: 5 };

describe("parseAxis", () => {
  it("binds products closer than concatenations", () => {
    expect(parseAxis("ffn + group * 2")).toEqual({
      kind: "concatenation",
      parts: [
        { kind: "dimension", name: "ffn" },
        {
          kind: "product",
          factors: [
            { kind: "dimension", name: "group" },
            { kind: "fixed", size: 2 },
          ],
        },
      ],
    });
  });

  it.each(["", "ffn +", "* ffn", "(ffn", "ffn)", "ffn group", "ffn - 1", "Ffn"])("refuses %j", (text) => {
    expect(() => parseAxis(text)).toThrow(/malformed/);
  });

  it("names each dimension once", () => {
    expect(dimensionsOf(parseAxis("group * (heads_of_group * head_dim + head_dim + head_dim)"))).toEqual([
      "group",
      "heads_of_group",
      "head_dim",
    ]);
  });
});

describe("keptPositions", () => {
  it("keeps whole groups of a fused query, key and value axis", () => {
    const qkv = parseAxis("group * (heads_of_group * head_dim + head_dim + head_dim)");
    expect(axisSize(qkv, SIZES)).toBe(48);
    const positions = keptPositions(qkv, SIZES, (name) => (name === "group" ? [1] : undefined), {});
    expect(positions).toEqual(Array.from({ length: 16 }, (_, i) => 16 + i));
  });

  it("keeps other heads in each group, and their group's key and value", () => {
    const qkv = parseAxis("group * (heads_of_group + 1 + 1)");
    const kept = (name: string, scope: Readonly<Record<string, number>>): number[] | undefined =>
      name === "group" ? [0, 2] : name === "heads_of_group" ? [scope["group"] === 0 ? 1 : 0] : undefined;
    expect(keptPositions(qkv, SIZES, kept, {})).toEqual([1, 2, 3, 8, 10, 11]);
  });

  it("keeps both halves of a stacked gate", () => {
    expect(keptPositions(parseAxis("ffn + ffn"), SIZES, () => [0, 3], {})).toEqual([0, 3, 5, 8]);
  });

  it("agrees with picking the positions whose every digit is kept", () => {
    const subset = (size: number): fc.Arbitrary<number[]> =>
      fc.subarray(
        Array.from({ length: size }, (_, i) => i),
        { minLength: 1 },
      );
    fc.assert(
      fc.property(subset(3), subset(2), subset(4), (group, heads_of_group, head_dim) => {
        const kept: Record<string, number[]> = { group, heads_of_group, head_dim };
        const expected = Array.from({ length: 24 }, (_, i) => i).filter(
          (i) => group.includes(Math.floor(i / 8)) && heads_of_group.includes(Math.floor(i / 4) % 2) && head_dim.includes(i % 4),
        );
        expect(keptPositions(parseAxis("group * heads_of_group * head_dim"), SIZES, (name) => kept[name], {})).toEqual(expected);
      }),
    );
  });
});
