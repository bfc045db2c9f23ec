import { type FileHandle, open } from "node:fs/promises";
import { PruneError } from "../errors.js";
import { DTYPE_BITS, type Dtype } from "../tensor.js";

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

const LENGTH_BYTES = 8;
// The cap that the safetensors library has.
const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads and checks a file's header, and nothing beyond it: every byte after the header belongs to exactly one tensor, and each tensor's
 * bytes are what its dtype and shape make.
 *
 * @throws PruneError BAD_SAFETENSORS that says which promise the file breaks, or PATH_NOT_FOUND
 */
export async function readHeader(path: string): Promise<Header> {
  const file = await openForReading(path);
  try {
    const fileBytes = (await file.stat()).size;
    const jsonBytes = await readHeaderLength(file, path, fileBytes);
    const raw = await readExactly(file, path, 0, LENGTH_BYTES + jsonBytes);
    const parsed = parseHeaderJson(raw.subarray(LENGTH_BYTES), path);
    const tensors = parsed.entries.map(([name, entry]) => parseTensor(name, entry, path, raw.length));
    tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
    checkCoverage(tensors, path, raw.length, fileBytes);
    return { path, fileBytes, raw, metadata: parsed.metadata, tensors };
  } finally {
    await file.close();
  }
}

/** Reads one tensor's bytes. */
export async function readTensorBytes(header: Header, tensor: HeaderTensor): Promise<Uint8Array> {
  const file = await openForReading(header.path);
  try {
    return await readExactly(file, header.path, tensor.begin, tensor.end - tensor.begin);
  } finally {
    await file.close();
  }
}

/** Reads the first bytes of some tensors, at most as many of each as given. */
export async function readTensorStarts({ path }: Header, tensors: readonly HeaderTensor[], most: number): Promise<Uint8Array[]> {
  const file = await openForReading(path);
  try {
    return await Promise.all(tensors.map(({ begin, end }) => readExactly(file, path, begin, Math.min(most, end - begin))));
  } finally {
    await file.close();
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    throw new PruneError("PATH_NOT_FOUND", `cannot read ${path}`, { cause });
  }
}

async function readHeaderLength(file: FileHandle, path: string, fileBytes: number): Promise<number> {
  if (fileBytes < LENGTH_BYTES) throw bad(path, `is ${fileBytes} bytes long, too short for a safetensors file`, "download it again");
  const length = Buffer.from(await readExactly(file, path, 0, LENGTH_BYTES)).readBigUInt64LE();
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
  return Number(length);
}

async function readExactly(file: FileHandle, path: string, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, position + filled);
    if (bytesRead === 0)
      throw bad(path, `ends at byte ${position + filled}, ${length - filled} bytes early`, "the file is truncated; download it again");
    filled += bytesRead;
  }
  return bytes;
}

function parseHeaderJson(json: Uint8Array, path: string): { metadata: Record<string, string>; entries: [string, unknown][] } {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (cause) {
    throw bad(path, "has a header that is not JSON", "the file is corrupt; download it again", cause);
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
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !(dtype in DTYPE_BITS)) {
    throw bad(path, `gives ${name} the dtype ${JSON.stringify(dtype)}`, `known dtypes: ${Object.keys(DTYPE_BITS).join(", ")}`);
  }
  if (!isSizes(shape)) throw bad(path, `gives ${name} the shape ${JSON.stringify(shape)}`);
  if (!isSizes(offsets) || offsets.length !== 2) throw bad(path, `gives ${name} the offsets ${JSON.stringify(offsets)}`);
  const [begin = 0, end = 0] = offsets;
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BITS[dtype as Dtype]) / 8;
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes) {
    throw bad(
      path,
      `gives ${name} ${end - begin} bytes, but ${dtype} [${shape.join(", ")}] takes ${bytes}`,
      "the header is corrupt; download it again",
    );
  }
  return { name, dtype: dtype as Dtype, shape, begin: dataStart + begin, end: dataStart + end };
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
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function bad(path: string, what: string, hint?: string, cause?: unknown): PruneError {
  return new PruneError("BAD_SAFETENSORS", `${path} ${what}`, {
    ...(hint !== undefined && { hint }),
    ...(cause !== undefined && { cause }),
  });
}
