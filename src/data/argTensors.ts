import { type ErrorCode, PruneError } from "../errors.js";
import { byteLength, bytesOf, type Dtype, type Tensor } from "../tensor.js";

/** Numbers in a typed array: one sequence, [1, S]. Integers become I64. */
export type TypedArray =
  | BigInt64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array
  | Float32Array
  | Float64Array;

/** Numbers in arrays of equal length: `[[1, 2, 3], [4, 5, 6]]` is I64 [2, 3]. One row is one sequence, [1, S]. */
export type NestedNumbers = readonly number[] | readonly NestedNumbers[];

/** The value of one argument. */
export type ArgValue = Tensor | TypedArray | NestedNumbers;

/** Where arguments stand, for errors: what they are called, and what they could be. */
export interface Place {
  readonly code: ErrorCode;
  readonly where: string;
  readonly hint: string;
  /** Whether an array is one value, and no list of arguments. */
  readonly isValue: (array: readonly unknown[]) => boolean;
}

const INTEGERS = [BigInt64Array, Int32Array, Uint32Array, Int16Array, Uint16Array, Int8Array, Uint8Array] as const;

/** Takes `args` as torch.onnx.export has them apart: by position, and by name. */
export function splitArgs(args: unknown, place: Place): { positional: readonly unknown[]; named: Readonly<Record<string, unknown>> } {
  if (isPlainObject(args)) return { positional: [], named: args };
  if (!Array.isArray(args) || place.isValue(args)) return { positional: [args], named: {} };
  if (args.length === 0) throw bad(place, "is an empty array");
  const last: unknown = args.at(-1);
  return isPlainObject(last) ? { positional: args.slice(0, -1), named: last } : { positional: args, named: {} };
}

/** The tensor that the value of an argument is. Throws the place's code. */
export function toTensor(value: unknown, place: Place): Tensor {
  if (isTensor(value)) {
    const bytes = byteLength(value);
    if (value.data.byteLength === bytes) return value;
    throw bad(place, `holds ${value.data.byteLength} bytes where ${value.dtype} [${value.shape.join(", ")}] takes ${bytes}`);
  }
  if (ArrayBuffer.isView(value)) return fromTypedArray(value, place);
  if (Array.isArray(value)) return fromNested(value, place);
  throw bad(place, `is ${describe(value)}; give a typed array, nested arrays of numbers, or a tensor`);
}

// Copies: the caller may fill the same array again while the batch is on its way.
function fromTypedArray(values: ArrayBufferView, place: Place): Tensor {
  const row = (dtype: Dtype, copy: BigInt64Array | Float32Array | Float64Array): Tensor => ({
    dtype,
    shape: [1, copy.length],
    data: bytesOf(copy),
  });
  if (values instanceof BigInt64Array) return row("I64", values.slice());
  if (values instanceof Float32Array) return row("F32", values.slice());
  if (values instanceof Float64Array) return row("F64", values.slice());
  const integers = INTEGERS.find((kind) => values instanceof kind);
  if (integers) return row("I64", BigInt64Array.from(values as Int32Array, BigInt)); // one of the others, all of numbers
  throw bad(place, `is a ${values.constructor.name}; give a BigInt64Array, an Int32Array or a Float32Array`);
}

function fromNested(rows: readonly unknown[], place: Place): Tensor {
  const shape: number[] = [];
  for (let level: unknown = rows; Array.isArray(level); level = level[0]) shape.push(level.length);
  const values = flatten(rows, shape, place);
  const data = values.every(Number.isSafeInteger) ? BigInt64Array.from(values, BigInt) : Float32Array.from(values);
  return { dtype: data instanceof BigInt64Array ? "I64" : "F32", shape: shape.length === 1 ? [1, ...shape] : shape, data: bytesOf(data) };
}

function flatten(level: unknown, [length, ...inner]: readonly number[], place: Place): number[] {
  if (length === undefined) {
    if (typeof level === "number") return [level];
    throw bad(place, `holds ${describe(level)} among its numbers`);
  }
  if (!Array.isArray(level) || level.length !== length) {
    const found = Array.isArray(level) ? `one of ${level.length}` : describe(level);
    throw bad(place, `has rows of ${length} and ${found}: pad them, or give batches of one sequence`);
  }
  return level.flatMap((item) => flatten(item, inner, place));
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && "dtype" in value && "shape" in value && "data" in value;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value) && !isTensor(value);
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `the ${typeof value} ${String(value)}`;
}

/** The place of one argument. */
export function within({ where, ...place }: Place, name: string): Place {
  return { ...place, where: `${where}: ${name}` };
}

/** The error that says what is wrong with arguments. */
export function bad({ code, where, hint }: Place, what: string): PruneError {
  return new PruneError(code, `${where} ${what}`, { hint });
}
