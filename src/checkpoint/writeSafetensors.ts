import { DTYPE_BITS, type Tensor } from "../tensor.js";

/** A tensor and its name in a file. */
export interface NamedTensor extends Tensor {
  readonly name: string;
}

/** Encodes small tensors as one safetensors file. Weights never pass here: the shim writes those in blocks. */
export function encodeSafetensors(tensors: readonly NamedTensor[], metadata: Readonly<Record<string, string>>): Buffer {
  // Wide elements first, so that every tensor is aligned to its own width.
  const ordered = [...tensors].sort((a, b) => DTYPE_BITS[b.dtype] - DTYPE_BITS[a.dtype]);
  const header: [string, unknown][] = [["__metadata__", metadata]];
  let offset = 0;
  for (const { name, dtype, shape, data } of ordered) {
    header.push([name, { dtype, shape, data_offsets: [offset, offset + data.length] }]);
    offset += data.length;
  }
  // Made at once: an object takes a field of the name __proto__ no other way.
  const json = JSON.stringify(Object.fromEntries(header));
  const padded = Buffer.from(json + " ".repeat((8 - (Buffer.byteLength(json) % 8)) % 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, ...ordered.map(({ data }) => data)]);
}
