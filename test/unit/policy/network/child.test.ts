import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { networkChild } from "../../../../src/policy/network/child.js";
import { networkCosts } from "../../../../src/policy/network/costs.js";
import type { NetworkAxis, NetworkFacts } from "../../../../src/policy/network/facts.js";
import type { TensorSlice } from "../../../../src/policy/slices.js";
import { group, residualNetwork } from "../../../fixtures/residualNetwork.js";

const all = (index: number, channels: number): NetworkAxis => [{ group: index, begin: 0, end: channels, repeat: 1 }];

/** A convolution of 8 to 12 channels in 4 groups. */
const GROUPED: NetworkFacts = {
  groups: [
    { ...group(8, []), sections: 4 },
    { ...group(12, []), sections: 4 },
  ],
  parameters: [
    { name: "conv.weight", axes: [all(1, 12), all(0, 8), [{ fixed: 3 }]], isBuffer: false, blocks: 4 },
    { name: "conv.bias", axes: [all(1, 12)], isBuffer: false, blocks: 1 },
  ],
  operations: [],
  layers: [{ module: "conv", attributes: { in_channels: all(0, 8), out_channels: all(1, 12) } }],
};

const elements = ({ shape }: TensorSlice): number => shape.reduce((product, size) => product * size, 1);

describe("the child of a network", () => {
  it("has each axis' positions once, and whole axes without any", () => {
    const kept = [undefined, [1, 2], undefined, undefined, undefined, undefined];
    const { indexSets, tensors, modules } = networkChild(residualNetwork(), kept);
    expect([...indexSets]).toEqual([["group 1 0-47", [1, 2]]]);
    const conv2 = tensors.find(({ name }) => name === "block1.conv2.weight");
    expect(conv2?.parts).toEqual([
      { source: { name: "block1.conv2.weight", shape: [32, 48, 3, 3] }, axes: ["", "group 1 0-47", "", ""], blocks: [] },
    ]);
    expect(modules).toEqual([
      { module: "block1.conv1", attributes: { out_channels: 2 } },
      { module: "block1.conv2", attributes: { in_channels: 2 } },
      { module: "block1.bn1", attributes: { num_features: 2 } },
    ]);
  });

  it("keeps of each group of a convolution the filters over its own channels", () => {
    const { indexSets, tensors, modules } = networkChild(GROUPED, [
      [1, 2, 5, 6],
      [0, 2, 3, 4, 7, 8, 9, 11],
    ]);
    const [{ parts: [weight] = [], shape } = { shape: [] }] = tensors;
    expect(shape).toEqual([8, 1, 3]);
    expect(weight?.source.shape).toEqual([12, 2, 3]);
    const columns = weight?.blocks.map(([id = "", whole]) => [indexSets.get(id), whole]);
    // Rows 0-2 are the first group's, over channels 0 and 1.
    expect(columns).toEqual([1, 1, 0, 0, 1, 1, 0, 0].map((column) => [[column], ""]));
    expect(modules).toEqual([{ module: "conv", attributes: { in_channels: 4, out_channels: 8 } }]);
  });

  it("has filters of all groups where only the outputs are cut", () => {
    const { tensors } = networkChild(GROUPED, [undefined, [0, 3, 6, 9]]);
    expect(tensors[0]).toMatchObject({ shape: [4, 2, 3], parts: [{ axes: ["group 1 0-11", "", ""], blocks: [] }] });
  });

  it("has as many parameters as are counted", () => {
    const subset = (from: number, to: number) =>
      fc.option(
        fc.subarray(
          Array.from({ length: to - from }, (_, i) => from + i),
          { minLength: 1 },
        ),
        { nil: undefined },
      );
    const residual = residualNetwork();
    fc.assert(
      fc.property(subset(0, 32), subset(0, 48), subset(0, 64), subset(0, 96), (a, b, c, d) => {
        const kept = [a, b, c, undefined, d, undefined];
        const parameters = networkChild(residual, kept).tensors.filter((_, i) => !residual.parameters[i]?.isBuffer);
        expect(parameters.reduce((sum, slice) => sum + elements(slice), 0)).toBe(networkCosts(residual, kept).params);
      }),
    );
    const kept = [
      [1, 2, 5, 6],
      [0, 2, 3, 4, 7, 8, 9, 11],
    ];
    expect(networkCosts(GROUPED, kept).params).toBe(networkChild(GROUPED, kept).tensors.reduce((sum, slice) => sum + elements(slice), 0));
  });
});
