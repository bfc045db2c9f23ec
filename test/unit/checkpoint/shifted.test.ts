import { describe, expect, it } from "vitest";
import { shifted } from "../../../src/checkpoint/shifted.js";
import type { Dtype } from "../../../src/tensor.js";

function words(dtype: Dtype, bits: readonly number[]): Buffer {
  return Buffer.from(dtype === "F32" ? Uint32Array.from(bits).buffer : Uint16Array.from(bits).buffer);
}

// Bits by hand: BF16 1 is 0x3f80 with quanta of 2^-7 above and 2^-8 below; F16 1 is 0x3c00 with 2^-10 and 2^-11.
describe("shifted", () => {
  it.each<[what: string, dtype: Dtype, shift: number, from: number[], to: number[]]>([
    ["exact sums", "BF16", -1, [0x3f80, 0x3f81, 0x3f7f, 0xbf80], [0x0000, 0x3c00, 0xbb80, 0xc000]],
    ["a tie goes to the even one", "BF16", 2 ** -8, [0x3f80, 0x3f81], [0x3f80, 0x3f82]],
    ["what is above a tie goes up, which float32 in between would lose", "BF16", 2 ** -8 + 2 ** -40, [0x3f80], [0x3f81]],
    ["a carry into the exponent", "BF16", 2 ** -7, [0x3fff], [0x4000]],
    ["below the normal numbers", "BF16", 2 ** -133, [0x0001, 0x007f], [0x0002, 0x0080]],
    ["beyond the largest", "BF16", 3e38, [0x7f7f, 0xff80], [0x7f80, 0xff80]],
    ["half precision", "F16", -1, [0x3c01, 0x3bff, 0x0000], [0x1400, 0x9000, 0xbc00]],
    ["half precision below the normal numbers", "F16", 2 ** -24, [0x0001, 0x03ff], [0x0002, 0x0400]],
    ["half precision beyond the largest", "F16", 40000, [0x7bff], [0x7c00]],
    ["single precision", "F32", -1, [0x3f800001, 0x3f7fffff], [0x34000000, 0xb3800000]],
  ])("%s", (_what, dtype, shift, from, to) => {
    expect(shifted(words(dtype, from), dtype, shift)).toEqual(words(dtype, to));
  });

  it("keeps what is no number, and refuses what has no fraction", () => {
    expect(shifted(words("BF16", [0x7fc0]), "BF16", 1).readUInt16LE() & 0x7fff).toBeGreaterThan(0x7f80);
    expect(() => shifted(Buffer.alloc(8), "I64", 1)).toThrow(/VERIFY_FAILED.*I64 cannot be shifted/);
  });
});
