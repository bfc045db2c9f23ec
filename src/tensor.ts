import { PruneError } from "./errors.js";

/** Bits of one element, by the dtype names of safetensors headers. Those under eight are packed. */
export const DTYPE_BITS = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F8_E4M3: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2: 8,
  F8_E5M2FNUZ: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
} as const satisfies Record<string, number>;

/** An element type, spelt as in a safetensors header. */
export type Dtype = keyof typeof DTYPE_BITS;

/** A tensor in memory, little-endian and row-major. */
export interface Tensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** What one forward pass takes, by the model's argument names. A causal language model takes `input_ids`, I64 [B, S]. */
export type Batch = Readonly<Record<string, Tensor>>;

/** Batches to run, drawn one after the other. `size` says how many there will be, once that is known: it makes progress tell the time left. */
export type Batches = (AsyncIterable<Batch> | Iterable<Batch>) & { readonly size?: number | undefined };

/** A batch, and what of the caller's it was made of. */
export interface Drawn<Item> {
  readonly item: Item;
  readonly batch: Batch;
}

/** Batches with what they were made of. `size` is that of {@link Batches}. */
export type DrawnBatches<Item> = AsyncIterable<Drawn<Item>> & { readonly size?: number | undefined };

/**
 * What a batch gives back: the mean next-token cross entropy in nats, the logits of the last position, F32 [B, vocab], or all logits,
 * F32 [B, S, vocab].
 */
export type Returns = "loss" | "last_logits" | "logits";

const TYPED = [
  ["F32", Float32Array],
  ["F64", Float64Array],
  ["I64", BigInt64Array],
  ["I32", Int32Array],
  ["I16", Int16Array],
  ["I8", Int8Array],
  ["U8", Uint8Array],
] as const;

/**
 * A tensor of the values of a typed array, which it shares: a Float32Array makes F32, a BigInt64Array I64.
 *
 * @param shape - sizes of its axes, `[batch, 3, 32, 32]` for images
 * @throws PruneError BAD_DATA where the shape has another number of elements, or torch has no such type
 */
export function tensor(values: ArrayBufferView & { readonly length: number }, shape: readonly number[]): Tensor {
  const [dtype] = TYPED.find(([, kind]) => values instanceof kind) ?? [];
  if (!dtype) throw new PruneError("BAD_DATA", `a ${values.constructor.name} makes no tensor`, { hint: "give a Float32Array for one" });
  const elements = shape.reduce((product, size) => product * size, 1);
  if (elements === values.length) return { dtype, shape: [...shape], data: bytesOf(values) };
  throw new PruneError("BAD_DATA", `${values.length} values do not make a tensor [${shape.join(", ")}], which has ${elements}`);
}

/** How many batches there will be, if that is known. */
export function countOf(batches: Batches): number | undefined {
  return Array.isArray(batches) ? batches.length : batches.size;
}

/** The bytes that a dtype and a shape make: a fraction where packed elements do not fill their last byte, which no tensor may have. */
export function byteLength({ dtype, shape }: Pick<Tensor, "dtype" | "shape">): number {
  return shape.reduce((product, size) => product * size, DTYPE_BITS[dtype]) / 8;
}

/** A view of a tensor's bytes as 32-bit floats; copies where they are not aligned. */
export function asFloat32({ data }: Pick<Tensor, "data">): Float32Array {
  const aligned = data.byteOffset % 4 === 0 ? data : data.slice();
  return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 4);
}

/** A view of a tensor's bytes as 64-bit floats; copies where they are not aligned. */
export function asFloat64({ data }: Pick<Tensor, "data">): Float64Array {
  const aligned = data.byteOffset % 8 === 0 ? data : data.slice();
  return new Float64Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 8);
}

/** A view of a tensor's bytes as 64-bit integers; copies where they are not aligned. */
export function asBigInt64({ data }: Pick<Tensor, "data">): BigInt64Array {
  const aligned = data.byteOffset % 8 === 0 ? data : data.slice();
  return new BigInt64Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 8);
}

/** The bytes of a typed array, without a copy. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
