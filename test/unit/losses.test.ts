import { describe, expect, it } from "vitest";
import { type CrossEntropyOptions, crossEntropy, type PruneError } from "../../src/index.js";
import { asFloat32, bytesOf, type Tensor } from "../../src/tensor.js";

// torch.manual_seed(0); (torch.randn(2, 3, 4) * 2).round(decimals=1), and what torch 2.13's cross_entropy makes of it in float64.
const LOGITS = f32(
  [-2.3, -2.3, -0.5, -0.9, 1.7, 1.4, -0.6, -4.2, 0.9, -0.3, 2.9, 0.5, 0.3, 1.7, -0.3, -0.2, 1.9, 2.5, 4, 0.1, 1.2, -0.8, -1.7, -4.6],
  [2, 3, 4],
);
const LABELS = i64([1, -100, 3, 0, 2, 1], [2, 3]);
const PLAIN = [
  0.016522, -0.183478, 0.099954, 0.067001, 0, 0, 0, 0, 0.021366, 0.006435, 0.157876, -0.185678, -0.167797, 0.130591, 0.017674, 0.019532,
  0.017931, 0.032673, -0.053569, 0.002964, 0.16759, -0.177319, 0.009221, 0.000507,
];
const SHIFTED = [
  0, 0, 0, 0, 0.180784, 0.133928, 0.018125, -0.332838, 0, 0, 0, 0, 0.053672, 0.217651, -0.303877, 0.032554, 0.029886, -0.278878, 0.244052,
  0.00494, 0, 0, 0, 0,
];

function f32(values: readonly number[], shape: readonly number[]): Tensor {
  return { dtype: "F32", shape, data: bytesOf(Float32Array.from(values)) };
}

function i64(values: readonly number[], shape: readonly number[]): Tensor {
  return { dtype: "I64", shape, data: bytesOf(BigInt64Array.from(values, BigInt)) };
}

function failureOf(logits: Tensor | undefined, labels: Tensor | undefined, options?: CrossEntropyOptions): string {
  try {
    crossEntropy(logits, labels, options);
  } catch (error) {
    return (error as PruneError).message;
  }
  return "none";
}

describe("crossEntropy", () => {
  it.each([
    ["labels of the same position", {}, 1.8889832856207687, PLAIN],
    ["labels of the next position", { shift: true }, 3.5832822988072723, SHIFTED],
  ] as const)("is torch's with %s", (_name, options, loss, expected) => {
    const found = crossEntropy(LOGITS, LABELS, options);
    expect(found.loss).toBeCloseTo(loss, 6);
    expect(found.gradient.shape).toEqual([2, 3, 4]);
    for (const [index, value] of asFloat32(found.gradient).entries()) expect(value).toBeCloseTo(expected[index] ?? Number.NaN, 5);
  });

  it("takes another index of what is not to be predicted, and leaves -100 to be refused", () => {
    const labels = i64([1, 7, 3, 0, 2, 1], [2, 3]);
    expect(crossEntropy(LOGITS, labels, { ignoreIndex: 7 })).toEqual(crossEntropy(LOGITS, LABELS));
    expect(failureOf(LOGITS, LABELS, { ignoreIndex: 7 })).toMatch(/label -100, and there are 4 classes/);
  });

  it("is exact where exponentials overflow", () => {
    const { loss, gradient } = crossEntropy(f32([1000, 0, -1000], [1, 3]), i64([1], [1]));
    expect(loss).toBe(1000);
    expect([...asFloat32(gradient)]).toEqual([1, -1, 0]);
  });

  it.each([
    ["logits that are missing", undefined, LABELS, {}, /logits are missing where F32/],
    ["labels that are missing", LOGITS, undefined, {}, /labels are missing where I64 \[2, 3\]/],
    ["labels of another shape", LOGITS, i64([1, 2], [2]), {}, /labels are I64 \[2\] where I64 \[2, 3\] belongs/],
    ["a label of no class", LOGITS, i64([1, 4, 3, 0, 2, 1], [2, 3]), {}, /label 4, and there are 4 classes/],
    ["nothing to predict", LOGITS, i64(Array(6).fill(-100), [2, 3]), {}, /nothing to predict/],
    ["sequences of one token", f32([1, 2], [1, 1, 2]), i64([1], [1, 1]), { shift: true }, /nothing to predict/],
  ] as const)("refuses %s", (_name, logits, labels, options, message) => {
    expect(failureOf(logits, labels, options)).toMatch(message);
  });
});
