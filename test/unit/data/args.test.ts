import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ForwardArgs, toBatch, workloadOf } from "../../../src/data/args.js";
import { asBigInt64, asFloat32, type Batch, bytesOf, type Tensor } from "../../../src/tensor.js";

const tensor = (shape: readonly number[]): Tensor => ({
  dtype: "I64",
  shape,
  data: bytesOf(BigInt64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => BigInt(i))),
});
const content = (batch: Batch): unknown =>
  Object.fromEntries(
    Object.entries(batch).map(([name, one]) => {
      const values = one.dtype === "I64" ? [...asBigInt64(one)].map(Number) : [...asFloat32(one)];
      return [name, [one.dtype, one.shape, values]];
    }),
  );
const ids = [
  [1, 2, 3],
  [4, 5, 6],
];
const mask = [
  [1, 1, 1],
  [1, 1, 0],
];
const IDS = ["I64", [2, 3], [1, 2, 3, 4, 5, 6]];
const MASK = ["I64", [2, 3], [1, 1, 1, 1, 1, 0]];

describe("toBatch", () => {
  const forms: [string, ForwardArgs, unknown][] = [
    ["rows of numbers as one value", ids, { input_ids: IDS }],
    ["one row as one sequence", [1, 2, 3], { input_ids: ["I64", [1, 3], [1, 2, 3]] }],
    ["a BigInt64Array as one sequence", BigInt64Array.of(7n, 8n), { input_ids: ["I64", [1, 2], [7, 8]] }],
    ["an Int32Array as I64", Int32Array.of(7, 8), { input_ids: ["I64", [1, 2], [7, 8]] }],
    ["a tensor as it is", tensor([1, 2]), { input_ids: ["I64", [1, 2], [0, 1]] }],
    ["a tuple of rows", [ids, mask] as ForwardArgs, { input_ids: IDS, attention_mask: MASK }],
    [
      "a tuple of typed arrays",
      [Int32Array.of(7, 8), Uint8Array.of(1, 0), BigInt64Array.of(0n, 1n)],
      { input_ids: ["I64", [1, 2], [7, 8]], attention_mask: ["I64", [1, 2], [1, 0]], position_ids: ["I64", [1, 2], [0, 1]] },
    ],
    ["a last object as named arguments", [ids, { attention_mask: mask }], { input_ids: IDS, attention_mask: MASK }],
    [
      "one row before named arguments",
      [[1, 2], { labels: [[1, 2]] }],
      { input_ids: ["I64", [1, 2], [1, 2]], labels: ["I64", [1, 2], [1, 2]] },
    ],
    ["an object as a batch by names", { input_ids: ids, attention_mask: mask }, { input_ids: IDS, attention_mask: MASK }],
    ["a trailing empty object after a value", [ids, {}], { input_ids: IDS }],
    [
      "fractions as F32, of any rank",
      { input_ids: ids, attention_mask: [[[[0.5, -1]]]] },
      { input_ids: IDS, attention_mask: ["F32", [1, 1, 1, 2], [0.5, -1]] },
    ],
  ];
  it.each(forms)("takes %s", (_what, args, expected) => {
    expect(content(toBatch(args))).toEqual(expected);
  });

  it("copies a typed array, which its owner may fill again", () => {
    const own = BigInt64Array.of(1n, 2n);
    const batch = toBatch(own);
    own.fill(9n);
    expect(content(batch)).toEqual({ input_ids: ["I64", [1, 2], [1, 2]] });
  });

  it("gives rectangular numbers back as they were", () => {
    const rows = fc
      .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 5 }))
      .chain(([r, c]) => fc.array(fc.array(fc.maxSafeInteger(), { minLength: c, maxLength: c }), { minLength: r, maxLength: r }));
    fc.assert(
      fc.property(rows, (values) => {
        expect(content(toBatch(values))).toEqual({ input_ids: ["I64", [values.length, values[0]?.length], values.flat()] });
      }),
    );
  });

  it.each<[string, unknown, RegExp]>([
    ["nothing", null, /batch 3: input_ids is null/],
    ["a text", "abc", /batch 3: input_ids is the string abc/],
    ["an empty array", [], /batch 3 is an empty array/],
    ["rows of unequal length", [[1, 2], [3]], /batch 3: input_ids has rows of 2 and one of 1/],
    ["rows of different depth", { input_ids: [[1], 2] }, /batch 3: input_ids has rows of 1 and the number 2/],
    ["a text among numbers", { input_ids: [[1, "2"]] }, /batch 3: input_ids holds the string 2 among its numbers/],
    ["no token ids", { attention_mask: mask }, /batch 3 has no input_ids beside attention_mask/],
    [
      "four positional arguments",
      [tensor([1, 1]), tensor([1, 1]), tensor([1, 1]), tensor([1, 1])],
      /takes input_ids, attention_mask, position_ids/,
    ],
    ["one argument twice", [ids, { input_ids: ids }], /batch 3 has input_ids twice/],
    ["an object that a trailing empty one makes positional", [ids, { attention_mask: mask }, {}], /batch 3: attention_mask is an object/],
    ["a typed array of another kind", new BigUint64Array(2), /batch 3: input_ids is a BigUint64Array/],
    ["a tensor of other bytes", { ...tensor([1, 2]), shape: [1, 3] }, /holds 16 bytes where I64 \[1, 3\] takes 24/],
  ])("refuses %s, and says where", (_what, args, message) => {
    expect(() => toBatch(args as ForwardArgs, "batch 3")).toThrow(
      expect.objectContaining({ code: "BAD_DATA", detail: expect.stringMatching(message) }),
    );
  });
});

describe("workloadOf", () => {
  it.each<[string, ForwardArgs | null | undefined, unknown]>([
    ["nothing", undefined, undefined],
    ["null", null, undefined],
    ["rows", ids, { batchSize: 2, seqLength: 3 }],
    ["a typed array", new Int32Array(4096), { batchSize: 1, seqLength: 4096 }],
    ["named arguments", { input_ids: tensor([8, 16]), attention_mask: tensor([8, 16]) }, { batchSize: 8, seqLength: 16 }],
  ])("of %s", (_what, dummyInput, expected) => {
    expect(workloadOf(dummyInput)).toEqual(expected);
  });

  it.each<[string, unknown, RegExp]>([
    ["three axes", tensor([1, 2, 3]), /dummyInput: input_ids is \[1, 2, 3\]; token ids are/],
    ["no tokens", new Int32Array(0), /dummyInput: input_ids is \[1, 0\]/],
    ["a number", 7, /dummyInput: input_ids is the number 7/],
  ])("refuses %s", (_what, dummyInput, message) => {
    expect(() => workloadOf(dummyInput as ForwardArgs)).toThrow(
      expect.objectContaining({ code: "BAD_OPTION", detail: expect.stringMatching(message) }),
    );
  });
});
