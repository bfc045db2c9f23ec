import { PruneError } from "../errors.js";
import { DTYPE_BITS, type Dtype } from "../tensor.js";
import { parseStrictJson } from "./strictJson.js";

/** A tensor as a header describes it; `begin` and `end` are offsets from the start of the file. */
export interface HeaderTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** The header of one safetensors file, with its tensors in the order of their bytes. */
export interface Header {
  readonly path: string;
  readonly fileBytes: number;
  /** The header as it stands in the file: 8 bytes of length, then JSON. */
  readonly raw: Uint8Array;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly HeaderTensor[];
}

/** What a file begins with: the length of the JSON behind it. */
export const LENGTH_BYTES = 8;
// The cap that the safetensors library has.
const MAX_HEADER_BYTES = 100_000_000;
const FIELDS = ["dtype", "shape", "data_offsets"];

/**
 * The bytes of a file's header, its length included.
 *
 * @param start - at least the first 8 bytes of the file, or all where it is shorter
 * @throws PruneError BAD_SAFETENSORS where the file cannot hold such a header
 */
export function headerBytes(start: Uint8Array, fileBytes: number, path: string): number {
  if (fileBytes < LENGTH_BYTES) throw bad(path, `is ${fileBytes} bytes long, too short for a safetensors file`, "download it again");
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw bad(
      path,
      `states a header of ${length} bytes, over the cap of ${MAX_HEADER_BYTES}`,
      "it is no safetensors file, or its writing was not finished",
    );
  }
  if (length > BigInt(fileBytes - LENGTH_BYTES)) {
    throw bad(path, `states a header of ${length} bytes but is only ${fileBytes} bytes long`, "the file is truncated; download it again");
  }
  return LENGTH_BYTES + Number(length);
}

/**
 * Checks a header: every byte after it belongs to exactly one tensor, and each tensor's bytes are what its dtype and shape make.
 *
 * @param raw - the header as it stands in the file
 * @throws PruneError BAD_SAFETENSORS that says which promise the file breaks
 */
export function parseHeader(raw: Uint8Array, fileBytes: number, path: string): Header {
  const { metadata, entries } = parseJson(raw.subarray(LENGTH_BYTES), path);
  const tensors = entries.map(([name, entry]) => parseTensor(name, entry, path, raw.length));
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(tensors, path, raw.length, fileBytes);
  return { path, fileBytes, raw, metadata, tensors };
}

function parseJson(json: Uint8Array, path: string): { metadata: Record<string, string>; entries: [string, unknown][] } {
  let header: unknown;
  try {
    header = parseStrictJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json), { digitsOnly: true });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw bad(path, `has a header that cannot be read: ${why}`, "the file is corrupt; download it again", cause);
  }
  if (!isRecord(header)) throw bad(path, "has a header that is not a JSON object", "the file is corrupt; download it again");
  const { __metadata__: metadata = {}, ...tensors } = header;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === "string")) {
    throw bad(path, "has __metadata__ that is not a map of strings");
  }
  return { metadata: metadata as Record<string, string>, entries: Object.entries(tensors) };
}

function parseTensor(name: string, entry: unknown, path: string, dataStart: number): HeaderTensor {
  if (!isRecord(entry)) throw bad(path, `describes ${name} by something other than an object`);
  const unknown = Object.keys(entry).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined) throw bad(path, `describes ${name} by ${unknown}`, `a tensor has ${FIELDS.join(", ")}`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BITS, dtype)) {
    throw bad(path, `gives ${name} the dtype ${JSON.stringify(dtype)}`, `known dtypes: ${Object.keys(DTYPE_BITS).join(", ")}`);
  }
  if (!isSizes(shape)) throw bad(path, `gives ${name} the shape ${JSON.stringify(shape)}`);
  if (!isSizes(offsets) || offsets.length !== 2) throw bad(path, `gives ${name} the offsets ${JSON.stringify(offsets)}`);
  const [begin = 0, end = 0] = offsets;
  const bytes = bytesOfShape(shape, DTYPE_BITS[dtype as Dtype]);
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes) {
    throw bad(
      path,
      `gives ${name} ${end - begin} bytes, but ${dtype} [${shape.join(", ")}] takes ${bytes}`,
      "the header is corrupt; download it again",
    );
  }
  return { name, dtype: dtype as Dtype, shape, begin: dataStart + begin, end: dataStart + end };
}

/** NaN where a product of some sizes is no exact number, be it that a zero follows: the reference library refuses what overflows. */
function bytesOfShape(shape: readonly number[], bits: number): number {
  return shape.reduce((product, size) => (Number.isSafeInteger(product * size) ? product * size : Number.NaN), bits) / 8;
}

function checkCoverage(tensors: readonly HeaderTensor[], path: string, dataStart: number, fileBytes: number): void {
  let covered = dataStart;
  for (const { name, begin, end } of tensors) {
    if (begin < covered)
      throw bad(path, `has ${name} overlap the tensor before it at byte ${begin}`, "the header is corrupt; download it again");
    if (begin > covered)
      throw bad(path, `leaves bytes ${covered} to ${begin} before ${name} to no tensor`, "the header is corrupt; download it again");
    covered = end;
  }
  if (fileBytes < covered) {
    throw bad(path, `is ${fileBytes} bytes long, but its header needs ${covered}`, "the file is truncated; download it again");
  }
  if (fileBytes > covered)
    throw bad(path, `has ${fileBytes - covered} bytes after its last tensor`, "the file is corrupt; download it again");
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An error about a file that is not what a safetensors file is. */
export function bad(path: string, what: string, hint?: string, cause?: unknown): PruneError {
  return new PruneError("BAD_SAFETENSORS", `${path} ${what}`, {
    ...(hint !== undefined && { hint }),
    ...(cause !== undefined && { cause }),
  });
}
