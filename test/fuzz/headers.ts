import fc from "fast-check";
import { type Header, headerBytes, parseHeader } from "../../src/checkpoint/header.js";
import { byteLength, DTYPE_BITS, type Dtype } from "../../src/tensor.js";
import { near } from "./documents.js";

const DTYPES = Object.keys(DTYPE_BITS) as Dtype[];

/** Literals that mean something in a header. */
const OWN = [...DTYPES.map((dtype) => `"${dtype}"`), '"F7"', "[0,0]", "[0,4]", "[4,0]", "[1,2,3]", "[9007199254740991,0]", '{"a":"b"}'];

const tensor = fc
  .record({ dtype: fc.constantFrom(...DTYPES), shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }) })
  .filter((info) => Number.isInteger(byteLength(info)));

/** Headers that tell the truth. */
const truthful: fc.Arbitrary<Record<string, unknown>> = fc
  .tuple(fc.array(tensor, { maxLength: 4 }), fc.constantFrom(undefined, {}, { format: "pt" }))
  .map(([tensors, metadata]) => {
    let offset = 0;
    const entries = tensors.map((info, i): [string, unknown] => {
      const begin = offset;
      offset += byteLength(info);
      return [`t${i}`, { ...info, data_offsets: [begin, offset] }];
    });
    return { ...(metadata && { __metadata__: metadata }), ...Object.fromEntries(entries) };
  });

/** A whole file: its header, changed in up to `most` places, and as many bytes of data as make it right, or not. */
export function files(most: number): fc.Arbitrary<Buffer> {
  const stretched = fc.oneof({ weight: 15, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constantFrom(1, -1, 8, 1e9) });
  return fc
    .tuple(
      truthful.chain((header) => fc.tuple(near(fc.constant(header), OWN, most), fc.constant(dataBytes(header)))),
      stretched,
      stretched,
    )
    .map(([[json, data], lengthOff, dataOff]) => {
      const stated = Math.max(0, json.length + lengthOff);
      return Buffer.concat([startOfFile(json, stated), Buffer.alloc(Math.min(1000, Math.max(0, data + dataOff)))]);
    });
}

/** A header as it stands in a file, with the length that it states. */
export function startOfFile(json: Buffer, stated = json.length): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(stated));
  return Buffer.concat([length, json]);
}

/** Reads the header of a file that lies in memory. */
export function headerOf(file: Uint8Array): Header {
  return parseHeader(file.subarray(0, headerBytes(file, file.length, "x.safetensors")), file.length, "x.safetensors");
}

function dataBytes(header: Record<string, unknown>): number {
  return Object.values(header).reduce<number>((most, entry) => Math.max(most, offsetsOf(entry)[1] ?? 0), 0);
}

function offsetsOf(entry: unknown): readonly number[] {
  return (entry as { data_offsets?: number[] }).data_offsets ?? []; // __metadata__ has none
}
