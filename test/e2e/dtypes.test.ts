// Bits pass through a cut as they are, whatever they mean.
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readHeader, readTensorBytes } from "../../src/checkpoint/safetensors.js";
import { Bridge, plan, readParent, slice } from "../../src/index.js";
import { byteLength, DTYPE_BITS, type Dtype, type Tensor } from "../../src/tensor.js";
import { mulberry32, TINY_LLAMA, temporaryFolder, tensorsOf } from "../fixtures/checkpoints.js";
import { randomScores } from "../fixtures/cutting.js";
import { writeTensors } from "../fixtures/quantized.js";

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

const UP = "model.layers.1.mlp.up_proj.weight";
const TARGET = { ffn_hidden_size: 16, hidden_size: 8 };

/** Random bits; every fourth element all ones (a NaN with its whole payload) and every other fourth the sign alone (-0). */
function anyBits(dtype: Dtype, shape: readonly number[]): Uint8Array {
  const random = mulberry32(DTYPE_BITS[dtype]);
  const data = Uint8Array.from({ length: byteLength({ dtype, shape }) }, () => random() * 256);
  const width = Math.max(1, DTYPE_BITS[dtype] / 8);
  for (let at = 0; at + 2 * width <= data.length; at += 4 * width) {
    data
      .fill(0xff, at, at + width)
      .fill(0, at + width, at + 2 * width)
      .fill(0x80, at + 2 * width - 1, at + 2 * width);
  }
  return data;
}

/** The bits of one element, the lowest first. */
function bitsAt({ dtype, data }: Tensor, element: number): string {
  const bits = DTYPE_BITS[dtype];
  const bit = (at: number): number => ((data[at >> 3] ?? 0) >> (at & 7)) & 1;
  return Array.from({ length: bits }, (_, i) => bit(element * bits + i)).join("");
}

it.each(Object.keys(DTYPE_BITS) as Dtype[])("%s passes bit for bit", async (dtype) => {
  const dir = await temporaryFolder();
  const tensors = tensorsOf(TINY_LLAMA).map(({ name, shape }) => ({ name, dtype, shape, data: anyBits(dtype, shape) }));
  const parent = await readParent(await writeTensors(join(dir, "parent"), TINY_LLAMA, tensors));
  // Elements that share bytes go together, which the first ones of each dimension do.
  const packed = DTYPE_BITS[dtype] < 8;
  const made = plan(parent, TARGET, packed ? "position" : { scores: randomScores(TINY_LLAMA, 9), path: "random" });
  await slice(bridge, parent, made, join(dir, "child"));

  const header = await readHeader(join(dir, "child", "model.safetensors"));
  const stored = header.tensors.find(({ name }) => name === UP);
  if (!stored) throw new Error(`the child has no ${UP}`);
  expect(stored).toMatchObject({ dtype, shape: [16, 8] });
  const [child, whole] = [{ ...stored, data: await readTensorBytes(header, stored) }, tensors.find(({ name }) => name === UP)];
  const { hidden, ffn } = made.kept as { hidden: number[]; ffn: Record<string, number[]> };
  const expected = ffn["1"]?.flatMap((row) => hidden.map((column) => whole && bitsAt(whole, row * 24 + column)));
  expect(Array.from({ length: 16 * 8 }, (_, element) => bitsAt(child, element))).toEqual(expected);
});
