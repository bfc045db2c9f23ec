import { type ErrorCode, PruneError } from "../errors.js";
import { type Batch, byteLength, bytesOf, type Dtype, type Tensor } from "../tensor.js";

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

/** Arguments by name. */
export type NamedArgs = { readonly [name: string]: ArgValue };

/**
 * Arguments of a model's forward, as `args` of torch.onnx.export: one value; an array of positional arguments, `input_ids`,
 * `attention_mask`, `position_ids`; such an array that ends with an object of arguments by name, which an empty object behind it would turn
 * into a positional one. An object alone is a batch by names. Rows of plain numbers are one value, token ids, and no positional arguments.
 */
export type ForwardArgs = ArgValue | NamedArgs | readonly (ArgValue | NamedArgs)[];

/** What a model would be run with: it states the batch size and the sequence length that metrics are for. */
export type DummyInput = ForwardArgs;

/** Sizes of a forward pass. */
export interface Workload {
  readonly batchSize: number;
  readonly seqLength: number;
}

const POSITIONAL = ["input_ids", "attention_mask", "position_ids"] as const;
const INTEGERS = [BigInt64Array, Int32Array, Uint32Array, Int16Array, Uint16Array, Int8Array, Uint8Array] as const;

/**
 * Makes a batch of the arguments of one forward pass.
 *
 * @param where - how errors name it, `batch 3` for one
 * @throws PruneError BAD_DATA that names the argument
 */
export function toBatch(args: ForwardArgs, where = "the batch"): Batch {
  return readArgs(args, { code: "BAD_DATA", where });
}

/**
 * The sizes of a dummy input, from its `input_ids`; undefined where there is none.
 *
 * @throws PruneError BAD_OPTION that names the argument
 */
export function workloadOf(dummyInput: DummyInput | null | undefined): Workload | undefined {
  if (dummyInput === null || dummyInput === undefined) return undefined;
  const place: Place = { code: "BAD_OPTION", where: "dummyInput" };
  const shape = readArgs(dummyInput, place)["input_ids"]?.shape ?? [];
  const [batchSize = 0, seqLength = 0, ...others] = shape;
  if (batchSize > 0 && seqLength > 0 && others.length === 0) return { batchSize, seqLength };
  throw bad(within(place, "input_ids"), `is [${shape.join(", ")}]; token ids are [batch, sequence], neither of them 0`);
}

interface Place {
  readonly code: ErrorCode;
  readonly where: string;
}

function readArgs(args: unknown, place: Place): Batch {
  const { positional, named } = splitArgs(args, place);
  if (positional.length > POSITIONAL.length)
    throw bad(place, `has ${positional.length} positional arguments; a causal language model takes ${POSITIONAL.join(", ")}`);
  const values = new Map<string, unknown>(positional.map((value, index) => [POSITIONAL[index] as string, value])); // checked above
  for (const [name, value] of Object.entries(named)) {
    if (values.has(name)) throw bad(place, `has ${name} twice, by its position and by its name`);
    values.set(name, value);
  }
  if (!values.has(POSITIONAL[0])) throw bad(place, `has no input_ids${values.size > 0 ? ` beside ${[...values.keys()].join(", ")}` : ""}`);
  return Object.fromEntries([...values].map(([name, value]) => [name, toTensor(value, within(place, name))]));
}

function splitArgs(args: unknown, place: Place): { positional: readonly unknown[]; named: Readonly<Record<string, unknown>> } {
  if (isPlainObject(args)) return { positional: [], named: args };
  if (!Array.isArray(args) || isRows(args)) return { positional: [args], named: {} };
  if (args.length === 0) throw bad(place, "is an empty array");
  const last: unknown = args.at(-1);
  return isPlainObject(last) ? { positional: args.slice(0, -1), named: last } : { positional: args, named: {} };
}

function toTensor(value: unknown, place: Place): Tensor {
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

function isRows(value: readonly unknown[]): boolean {
  const isRow = (row: unknown): boolean => Array.isArray(row) && row.every((item) => typeof item === "number");
  return value.length > 0 && (isRow(value) || value.every(isRow));
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `the ${typeof value} ${String(value)}`;
}

function within({ code, where }: Place, name: string): Place {
  return { code, where: `${where}: ${name}` };
}

function bad({ code, where }: Place, what: string): PruneError {
  return new PruneError(code, `${where} ${what}`, {
    hint: "arguments are one value, [input_ids, attention_mask], or { input_ids, ... }",
  });
}
