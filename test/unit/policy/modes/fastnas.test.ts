import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { checkProfile, chooseNetwork, measureSpace, networkSpace, profileSpace } from "../../../../src/policy/modes/fastnas.js";
import { choiceRule, networkOptions } from "../../../../src/policy/modes/fastnasOptions.js";
import { type NetworkConstraint, parseNetworkConstraint } from "../../../../src/policy/modes/networkConstraint.js";
import { networkCosts } from "../../../../src/policy/network/costs.js";
import type { Selection } from "../../../../src/policy/sensitivity/sensitivity.js";
import { residualNetwork } from "../../../fixtures/residualNetwork.js";

interface GoldenCase {
  readonly constraint: Readonly<Partial<Record<"flops" | "params", string>>>;
  readonly best_config: Selection;
  readonly best_constraints: { readonly params: number; readonly flops: number };
  readonly best_metric: number;
  readonly original_score: number;
  readonly sensitivity_map: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly params: number;
}

const CASES = JSON.parse(readFileSync(new URL("../../../golden/fastnas-resnet/case.json", import.meta.url), "utf8")) as Record<
  string,
  GoldenCase
>;
// The reference keeps "down" at its size.
const OPTIONS = networkOptions.parse({
  "nn.Conv2d": { "*": { channel_divisor: 8 }, down: null },
  "nn.Linear": { "*": { feature_divisor: 8 } },
});
const space = networkSpace(residualNetwork(), choiceRule(OPTIONS));

const constraintOf = (given: unknown): NetworkConstraint => parseNetworkConstraint("fastnas", given);

describe.each(Object.entries(CASES))("the golden %s", (_, golden) => {
  const constraint = constraintOf(golden.constraint);

  it("has the reference's choices and costs", () => {
    const choices = Object.fromEntries(space.hyperparameters.map(({ name, choices: sizes }) => [name, sizes.map(String)]));
    expect(choices).toEqual(Object.fromEntries(Object.entries(golden.sensitivity_map).map(([name, map]) => [name, Object.keys(map)])));
    const { params, flops } = space.costsOf(golden.best_config);
    expect({ params, flops }).toEqual({ params: golden.params, flops: golden.best_constraints.flops });
  });

  it("is chosen from the reference's sensitivities", () => {
    const degradations = Object.fromEntries(Object.entries(golden.sensitivity_map).map(([name, map]) => [name, Object.values(map)]));
    const found = chooseNetwork(space, profileSpace(space, constraint), { originalScore: golden.original_score, degradations });
    expect(found.selection).toEqual(Object.fromEntries(space.hyperparameters.map(({ name }) => [name, golden.best_config[name]])));
    expect(found.sensitivityMap).toEqual(golden.sensitivity_map);
    expect(-found.degradation).toBe(golden.best_metric);
  });
});

describe("fastnas", () => {
  const flops40 = constraintOf({ flops: "40%" });

  it("profiles the smallest, the middle and the original network", () => {
    const { subnets: rows, ...rest } = profileSpace(space, flops40);
    expect(rest).toEqual({ metric: "flops", most: 0.4 * space.costsOf({}).flops, satisfiable: true });
    expect(rows.map(({ name, selection }) => [name, Object.values(selection)])).toEqual([
      ["min", [8, 8, 8, 8]],
      ["centroid", [16, 24, 32, 48]],
      ["max", [32, 48, 64, 96]],
    ]);
    expect(rows.map(({ costs }) => costs)).toEqual(rows.map(({ selection }) => networkCosts(residualNetwork(), space.keptBy(selection))));
  });

  it("refuses a constraint that nothing meets", () => {
    for (const [given, says] of [
      [{ flops: "1%" }, /flops .* cannot be met.*smallest network has/],
      [{ params: 100 }, /params 100 cannot be met/],
    ] as const) {
      const profile = profileSpace(space, constraintOf(given));
      expect(profile.satisfiable).toBe(false);
      expect(() => checkProfile(profile)).toThrow(says);
    }
  });

  it("cuts what is useless first and keeps what is planted", async () => {
    // Only block1.conv1 matters: every channel of it that is lost costs one.
    const judge = async (kept: readonly (readonly number[] | undefined)[]): Promise<number> => -(48 - (kept[1]?.length ?? 48));
    const { selection, costs, degradation } = chooseNetwork(space, profileSpace(space, flops40), await measureSpace(space, judge));
    expect(selection).toEqual({
      "stem.out_channels": 8,
      "block1.conv1.out_channels": 48,
      "block2.conv1.out_channels": 8,
      "head1.out_features": 8,
    });
    expect(costs.flops).toBeLessThanOrEqual(0.4 * space.costsOf({}).flops);
    expect(degradation).toBe(0);
  });

  it("refuses a network of which nothing can be cut", () => {
    expect(() =>
      networkSpace(residualNetwork(), choiceRule(networkOptions.parse({ "nn.Conv2d": { "*": null }, "nn.Linear": { "*": null } }))),
    ).toThrow(/no layer of this network can be cut/);
  });

  it("takes no option that it does not know", () => {
    expect(networkOptions.safeParse({ "nn.Conv2d": { "*": { chanel_divisor: 8 } } }).success).toBe(false);
    expect(networkOptions.safeParse({ "nn.Conv9d": {} }).success).toBe(false);
    expect(networkOptions.safeParse({ "nn.Linear": { "*": { feature_divisor: 0 } } }).success).toBe(false);
  });

  it.each<[unknown, RegExp]>([
    [{}, /exactly one constraint, and none is given/],
    [{ flops: "50%", params: "50%" }, /exactly one constraint, and flops and params are given/],
    [{ export_config: { hidden_size: 8 } }, /knows no constraint export_config: it takes flops or params/],
    [{ flop: "50%" }, /no constraint flop/],
    [{ flops: "150%" }, /flops "150%" is no upper bound/],
    [{ params: 0 }, /params 0 is no upper bound/],
    ["50%", /must be an object/],
  ])("refuses the constraints %j", (given, says) => {
    expect(() => constraintOf(given)).toThrow(expect.objectContaining({ code: "BAD_CONSTRAINTS", detail: expect.stringMatching(says) }));
  });
});
