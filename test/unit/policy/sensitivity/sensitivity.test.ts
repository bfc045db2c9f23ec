import { describe, expect, it } from "vitest";
import { bisect } from "../../../../src/policy/sensitivity/bisection.js";
import { measureSensitivity, monotonic, type Selection, type Sensitivity } from "../../../../src/policy/sensitivity/sensitivity.js";

const SPACE = [
  { name: "a", choices: [1, 2, 3] },
  { name: "b", choices: [2, 4, 8] },
];

/** A judge by a table of what each size costs, and what it was asked. */
function judgeBy(costs: Readonly<Record<string, Readonly<Record<number, number>>>>) {
  const asked: Selection[] = [];
  const judge = async (selection: Selection): Promise<number> => {
    asked.push(selection);
    return 10 - Object.entries(selection).reduce((sum, [name, size]) => sum + (costs[name]?.[size] ?? 0), 0);
  };
  return { asked, judge };
}

describe("measureSensitivity", () => {
  it("judges each choice with all else at its original size", async () => {
    const { asked, judge } = judgeBy({ a: { 1: 5, 2: 1 }, b: { 2: 3, 4: 4 } });
    const found = await measureSensitivity(SPACE, judge, undefined);
    expect(found).toEqual({ originalScore: 10, degradations: { a: [5, 1, 0], b: [3, 4, 0] } });
    expect(asked).toEqual([
      { a: 3, b: 8 },
      { a: 1, b: 8 },
      { a: 2, b: 8 },
      { a: 3, b: 2 },
      { a: 3, b: 4 },
    ]);
  });

  it("judges nothing above a choice that costs nothing", async () => {
    const { asked, judge } = judgeBy({ a: { 1: 9e-6, 2: 7 }, b: {} });
    const { degradations } = await measureSensitivity(SPACE, judge, undefined);
    expect(degradations.a).toEqual([expect.closeTo(9e-6, 9), 0, 0]);
    expect(asked).toHaveLength(3);
  });

  it("goes on from what was measured, telling after each hyperparameter", async () => {
    const { asked, judge } = judgeBy({ b: { 2: 3, 4: 1 } });
    const told: Sensitivity[] = [];
    const known = { originalScore: 10, degradations: { a: [5, 1, 0] } };
    const found = await measureSensitivity(SPACE, judge, known, { onMeasured: async (one) => void told.push(one) });
    expect(asked).toEqual([
      { a: 3, b: 2 },
      { a: 3, b: 4 },
    ]);
    expect(told).toEqual([{ originalScore: 10, degradations: { a: [5, 1, 0], b: [3, 1, 0] } }]);
    expect(found).toEqual(told[0]);
    expect(await measureSensitivity(SPACE, () => Promise.reject(new Error("judged")), found)).toEqual(found);
  });

  it("tells each score, and of what", async () => {
    const { judge } = judgeBy({ a: { 1: 5, 2: 0 }, b: { 2: 0 } });
    const told: [string, number][] = [];
    await measureSensitivity(SPACE, judge, undefined, { onScored: (what, score) => told.push([what, score]) });
    expect(told).toEqual([
      ["the whole network", 10],
      ["a 1", 5],
      ["a 2", 10],
      ["b 2", 10],
    ]);
  });
});

describe("bisect", () => {
  it("makes degradations that never rise", () => {
    expect(monotonic([3, 5, -1, 2, 0])).toEqual([5, 5, 2, 2, 0]);
  });

  it("takes the smallest choices within the least degradation that meets a constraint", () => {
    const degradations = { a: [5, 1, 0], b: [3, 2, 0] };
    const size = ({ a = 0, b = 0 }: Selection): number => a * b;
    const find = (most: number): Selection | undefined => bisect(SPACE, { degradations }, (selection) => size(selection) <= most);
    expect(find(24)).toEqual({ a: 3, b: 8 });
    expect(find(16)).toEqual({ a: 2, b: 8 });
    expect(find(15)).toEqual({ a: 2, b: 4 });
    expect(find(4)).toEqual({ a: 2, b: 2 });
    expect(find(3)).toEqual({ a: 1, b: 2 });
    expect(find(1)).toBeUndefined();
  });

  it.each([1e12, 1e307])("ends where degradations in steps of %s are further apart than its interval", (step) => {
    const degradations = { a: [5 * step, step, 0], b: [3 * step, 2 * step, 0] };
    const find = (most: number): Selection | undefined => bisect(SPACE, { degradations }, ({ a = 0, b = 0 }) => a * b <= most);
    expect(find(15)).toEqual({ a: 2, b: 4 });
    expect(find(3)).toEqual({ a: 1, b: 2 });
  });
});
