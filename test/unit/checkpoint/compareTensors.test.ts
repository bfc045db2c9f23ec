import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareTensors, type PlacedTensor } from "../../../src/checkpoint/compareTensors.js";
import { type CutTensor, cutShape, rowCount } from "../../../src/checkpoint/cutTensor.js";
import { readHeader } from "../../../src/checkpoint/safetensors.js";
import { encodeSafetensors } from "../../../src/checkpoint/writeSafetensors.js";
import { DTYPE_BITS, type Dtype } from "../../../src/tensor.js";
import { mulberry32, temporaryFolder } from "../../fixtures/checkpoints.js";

// Elements of a packed dtype are kept in groups of four, which make whole bytes of any.
const GROUP = 4;

const axis = (size: number): fc.Arbitrary<number[] | undefined> =>
  fc.option(
    fc
      .subarray([...Array(size / GROUP).keys()], { minLength: 1 })
      .map((groups) => groups.flatMap((g) => [0, 1, 2, 3].map((i) => g * GROUP + i))),
    { nil: undefined },
  );

/** Any cut of a tensor of up to three axes, whose inner axes may be cut in other ways at each position of the first. */
const cuts: fc.Arbitrary<CutTensor> = fc
  .record({
    dtype: fc.constantFrom<Dtype>("F4", "F6_E2M3", "U8", "BF16", "F32", "C64"),
    shape: fc.array(fc.constantFrom(4, 8, 12), { maxLength: 3 }),
    perBlock: fc.boolean(),
  })
  .chain(({ dtype, shape, perBlock }) =>
    fc.tuple(fc.tuple(...shape.map(axis)), fc.infiniteStream(fc.nat(8))).map(([axes, shifts]): CutTensor => {
      if (!perBlock || shape.length < 2) return { dtype, shape, axes, blocks: [] };
      const rotate = (kept: readonly number[] | undefined, size: number): number[] | undefined => {
        const by = GROUP * Number(shifts.next().value);
        return kept?.map((position) => (position + by) % size).sort((a, b) => a - b);
      };
      const count = axes[0]?.length ?? shape[0] ?? 0;
      const blocks = Array.from({ length: count }, () => axes.slice(1).map((kept, i) => rotate(kept, shape[i + 1] ?? 1)));
      return { dtype, shape, axes: axes.slice(0, 1), blocks };
    }),
  );

/** The elements of the parent that a cut keeps, one after the other, by plain indexing. */
function keptElements({ shape, axes, blocks }: CutTensor): number[] {
  const all = (size: number): number[] => [...Array(size).keys()];
  const walk = (at: number, base: number, block: CutTensor["axes"] | undefined): number[] => {
    if (at === shape.length) return [base];
    const kept = (at > 0 && block ? block[at - 1] : axes[at]) ?? all(shape[at] ?? 1);
    return kept.flatMap((position, i) => walk(at + 1, base * (shape[at] ?? 1) + position, at === 0 ? blocks[i] : block));
  };
  return walk(0, 0, undefined);
}

/** Copies elements bit by bit. */
function gather(dtype: Dtype, data: Uint8Array, elements: readonly number[]): Uint8Array {
  const bits = DTYPE_BITS[dtype];
  const out = new Uint8Array((elements.length * bits) / 8);
  for (const [to, from] of elements.entries()) {
    for (let bit = 0; bit < bits; bit++) {
      const [source, target] = [from * bits + bit, to * bits + bit];
      if (((data[source >> 3] ?? 0) >> (source & 7)) & 1) out[target >> 3] = (out[target >> 3] ?? 0) | (1 << (target & 7));
    }
  }
  return out;
}

async function place(path: string, dtype: Dtype, shape: readonly number[], data: Uint8Array): Promise<PlacedTensor> {
  await writeFile(path, encodeSafetensors([{ name: "t", dtype, shape, data }], {}));
  const [tensor] = (await readHeader(path)).tensors;
  if (!tensor) throw new Error("the file has a tensor");
  return { path, tensor };
}

describe("compareTensors", () => {
  it("finds every cut equal to plain indexing, and any byte that is not", async () => {
    const dir = await temporaryFolder();
    await fc.assert(
      fc.asyncProperty(cuts, fc.nat(), fc.integer({ min: 1, max: 255 }), async (cut, at, flip) => {
        const random = mulberry32(at);
        const elements = cut.shape.reduce((product, size) => product * size, 1);
        fc.pre((elements * DTYPE_BITS[cut.dtype]) % 8 === 0);
        const data = Uint8Array.from({ length: (elements * DTYPE_BITS[cut.dtype]) / 8 }, () => random() * 256);
        const kept = gather(cut.dtype, data, keptElements(cut));
        const rows = [...Array(rowCount(cut)).keys()];
        const parent = await place(join(dir, "parent"), cut.dtype, cut.shape, data);
        const child = await place(join(dir, "child"), cut.dtype, cutShape(cut), kept);
        let compared = 0;
        await compareTensors(child, parent, cut, rows, (bytes) => {
          compared += bytes;
        });
        expect(compared).toBe(kept.length);

        const byte = at % kept.length;
        kept[byte] = (kept[byte] ?? 0) ^ flip;
        const spoilt = await place(join(dir, "child"), cut.dtype, cutShape(cut), kept);
        const row = Math.floor((byte * 8) / DTYPE_BITS[cut.dtype] / (cutShape(cut).at(-1) ?? 1));
        const where = new RegExp(`VERIFY_FAILED.* t differs at row ${row}, position \\d+, from row \\d+, position \\d+, of t`);
        await expect(compareTensors(spoilt, parent, cut, rows, () => {})).rejects.toThrow(where);
      }),
      { numRuns: 150 },
    );
  });

  it("names the positions on both sides, in rows that are longer than what is read at a time", async () => {
    const dir = await temporaryFolder();
    const size = 3 << 20;
    const whole = new Uint16Array(2 * size).map((_, i) => i);
    const kept = [...Array(size).keys()].filter((i) => i % 3 !== 0);
    const cut: CutTensor = { dtype: "BF16", shape: [2, size], axes: [[1], kept], blocks: [] };
    const ours = Uint16Array.from(kept, (position) => whole[size + position] ?? 0);
    const parent = await place(join(dir, "parent"), "BF16", [2, size], new Uint8Array(whole.buffer));
    const at = kept.length - 7;
    await compareTensors(
      await place(join(dir, "child"), "BF16", [1, kept.length], new Uint8Array(ours.buffer)),
      parent,
      cut,
      [0],
      () => {},
    );
    ours[at] = (ours[at] ?? 0) + 1;
    const spoilt = await place(join(dir, "child"), "BF16", [1, kept.length], new Uint8Array(ours.buffer));
    await expect(compareTensors(spoilt, parent, cut, [0], () => {})).rejects.toThrow(
      `t differs at row 0, position ${at}, from row 1, position ${kept[at]}, of t in ${parent.path}`,
    );
  });

  it("says where a file ends that was cut short since its header was read", async () => {
    const dir = await temporaryFolder();
    const parent = await place(join(dir, "parent"), "U8", [64], new Uint8Array(64));
    const child = await place(join(dir, "child"), "U8", [64], new Uint8Array(64));
    await writeFile(parent.path, "");
    const cut: CutTensor = { dtype: "U8", shape: [64], axes: [undefined], blocks: [] };
    await expect(compareTensors(child, parent, cut, [0], () => {})).rejects.toThrow(/VERIFY_FAILED.*parent ends within t/);
  });
});
