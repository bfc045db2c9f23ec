import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readHeader, readTensorBytes } from "../../../src/checkpoint/safetensors.js";
import { encodeSafetensors, type NamedTensor } from "../../../src/checkpoint/writeSafetensors.js";
import { PruneError } from "../../../src/errors.js";
import { byteLength, DTYPE_BITS, type Dtype } from "../../../src/tensor.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

const tensors: fc.Arbitrary<NamedTensor[]> = fc.uniqueArray(
  fc
    .record({
      name: fc.string({ minLength: 1 }).filter((name) => name !== "__metadata__" && name !== "__proto__"),
      dtype: fc.constantFrom(...(Object.keys(DTYPE_BITS) as Dtype[])),
      shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
    })
    .filter((info) => Number.isInteger(byteLength(info)))
    .chain((info) => {
      const bytes = byteLength(info);
      return fc.record({ ...mapConstants(info), data: fc.uint8Array({ minLength: bytes, maxLength: bytes }) });
    }),
  { selector: ({ name }) => name, maxLength: 6 },
);

function mapConstants<T extends object>(record: T): { [K in keyof T]: fc.Arbitrary<T[K]> } {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, fc.constant(value)])) as {
    [K in keyof T]: fc.Arbitrary<T[K]>;
  };
}

describe("readHeader", () => {
  it("reads back what encodeSafetensors writes, bit for bit", async () => {
    const path = join(await temporaryFolder(), "x.safetensors");
    await fc.assert(
      fc.asyncProperty(tensors, async (written) => {
        await writeFile(path, encodeSafetensors(written, { note: "ü" }));
        const header = await readHeader(path);
        expect(header.metadata).toEqual({ note: "ü" });
        expect(header.tensors.length).toBe(written.length);
        for (const tensor of header.tensors) {
          const original = written.find(({ name }) => name === tensor.name);
          expect(tensor).toMatchObject({ dtype: original?.dtype, shape: original?.shape });
          expect(await readTensorBytes(header, tensor)).toEqual(new Uint8Array(original?.data ?? []));
        }
      }),
      { numRuns: 60 },
    );
  });

  it("ends in a header or a PruneError, whatever the bytes are", async () => {
    const path = join(await temporaryFolder(), "x.safetensors");
    const valid = encodeSafetensors([{ name: "a", dtype: "F32", shape: [2], data: new Uint8Array(8) }], {});
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.nat(valid.length),
        async (edits, cut) => {
          const bytes = Buffer.from(valid);
          for (const [at, value] of edits) bytes[at] = value;
          await writeFile(path, bytes.subarray(0, edits.length > 0 ? valid.length : cut));
          await readHeader(path).catch((error: unknown) => expect(error).toBeInstanceOf(PruneError));
        },
      ),
      { numRuns: 500 },
    );
  });

  it.each([
    ["a header that is not JSON", "{", /header that cannot be read/],
    ["a header that is a list", "[]", /not a JSON object/],
    ["an unknown dtype", '{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,8]}}', /dtype "F7"/],
    ["a negative size", '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', /-2 is not a whole number/],
    ["a shape whose size overflows", '{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}', /takes/],
    ["a gap", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', /leaves bytes/],
    ["bytes after the last tensor", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', /4 bytes after its last tensor/],
    ["metadata that is no map of strings", '{"__metadata__":{"a":1}}', /map of strings/],
  ])("refuses %s", async (_what, json, message) => {
    const path = join(await temporaryFolder(), "x.safetensors");
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    await writeFile(path, Buffer.concat([length, Buffer.from(json), Buffer.alloc(8)]));
    await expect(readHeader(path)).rejects.toThrow(message);
  });
});
