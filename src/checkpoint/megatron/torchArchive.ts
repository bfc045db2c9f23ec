import { crc32 } from "node:zlib";
import { PruneError } from "../../errors.js";
import type { Dtype } from "../../tensor.js";
import { readPickle } from "./pickle.js";
import { PERSISTENT, type Pickled, PickledName, PickledObject } from "./pickled.js";
import type { RangeFile } from "./rangeFile.js";
import { STORAGE_DTYPES, TENSOR_CLASSES, TORCH_DTYPES } from "./torchNames.js";
import { locateRecord, readZip, type ZipArchive, type ZipRecord } from "./zip.js";

/** Where the bytes of a tensor lie in a file, row-major and little-endian. */
export interface TensorBytes {
  readonly offset: number;
  readonly bytes: number;
  /** The CRC-32 (IEEE) that they had when they were written. */
  readonly crc32: number;
}

const LITTLE_ENDIAN = { bytes: 6, crc32: crc32("little") };

/**
 * Finds a tensor's bytes in what torch.save made of it.
 *
 * @param begin - where in the file the archive begins, and how long it is
 * @param expected - what the tensor has to be; its shape but for axes of one position
 * @throws PruneError BAD_TORCH_DIST where the archive holds another tensor, or not in row-major order
 */
export async function locateTensor(
  file: RangeFile,
  begin: number,
  length: number,
  expected: { readonly dtype: Dtype; readonly shape: readonly number[]; readonly bytes: number },
): Promise<TensorBytes> {
  const archive = await readZip(file, begin, length);
  const where = `the tensor at byte ${begin} of ${file.path}`;
  const described = describeTensor(await readArchivedPickle(archive, TENSOR_CLASSES, where));
  const same = described && described.dtype === expected.dtype && sameSizes(described.shape, expected.shape) && isRowMajor(described);
  const record = described && findRecord(archive, `data/${described.storage}`);
  if (!same || record?.bytes !== expected.bytes) {
    throw bad(`${where} is not the row-major ${expected.dtype} [${expected.shape.join(", ")}] that .metadata says it is`);
  }
  return { offset: await locateRecord(archive, record), bytes: record.bytes, crc32: record.crc32 };
}

/** Reads what torch.save made of an object without tensors that matter, as a pickle of the known classes. Throws BAD_TORCH_DIST. */
export async function readTorchObject(file: RangeFile, known: ReadonlySet<string>): Promise<Pickled> {
  return readArchivedPickle(await readZip(file, 0, file.bytes), known, file.path);
}

async function readArchivedPickle(archive: ZipArchive, known: ReadonlySet<string>, where: string): Promise<Pickled> {
  const order = findRecord(archive, "byteorder");
  if (order && (order.bytes !== LITTLE_ENDIAN.bytes || order.crc32 !== LITTLE_ENDIAN.crc32)) throw bad(`${where} is big-endian`);
  const record = findRecord(archive, "data.pkl");
  if (!record) throw bad(`${where} is no archive of torch.save: it has no data.pkl`);
  return readPickle(await archive.file.read(await locateRecord(archive, record), record.bytes), known, where);
}

function findRecord({ records }: ZipArchive, name: string): ZipRecord | undefined {
  return records.find((record) => record.name.slice(record.name.indexOf("/") + 1) === name);
}

interface Described {
  readonly dtype: Dtype | undefined;
  readonly storage: string;
  readonly offset: Pickled | undefined;
  readonly shape: readonly number[];
  readonly strides: readonly Pickled[];
}

/** Reads `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`, and v3, which has the dtype behind and no typed storage. */
function describeTensor(pickled: Pickled): Described | undefined {
  if (!(pickled instanceof PickledObject) || !pickled.name.startsWith("torch._utils._rebuild_tensor")) return undefined;
  const [persistent, offset, shape, strides, , , dtype] = pickled.args;
  const id = persistent instanceof PickledObject && persistent.name === PERSISTENT ? persistent.args[0] : undefined;
  if (!Array.isArray(id) || !isNumbers(shape) || !Array.isArray(strides)) return undefined;
  const [, storageClass, storage] = id;
  if (typeof storage !== "string" || !(storageClass instanceof PickledName)) return undefined;
  const named = dtype instanceof PickledName ? TORCH_DTYPES[dtype.name] : STORAGE_DTYPES[storageClass.name];
  return { dtype: named, storage, offset, shape, strides };
}

function isNumbers(value: Pickled | undefined): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === "number");
}

function sameSizes(found: readonly number[], expected: readonly number[]): boolean {
  const long = (sizes: readonly number[]): string => sizes.filter((size) => size !== 1).join();
  return long(found) === long(expected);
}

function isRowMajor({ offset, shape, strides }: Described): boolean {
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    if (size !== 1 && strides[axis] !== stride) return false;
    stride *= size;
  }
  return offset === 0;
}

function bad(what: string): PruneError {
  return new PruneError("BAD_TORCH_DIST", what, { hint: "save the checkpoint again with Megatron's torch_dist format" });
}
