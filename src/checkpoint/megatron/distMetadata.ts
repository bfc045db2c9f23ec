import { basename, join } from "node:path";
import { PruneError } from "../../errors.js";
import { byteLength, type Dtype } from "../../tensor.js";
import { readPickle } from "./pickle.js";
import { type Pickled, PickledName, PickledObject } from "./pickled.js";
import { RangeFile } from "./rangeFile.js";
import { METADATA_CLASSES, TORCH_DTYPES } from "./torchNames.js";

export const METADATA_FILE = ".metadata";

/** A box of a tensor, and the archive of torch.save that holds it. */
export interface Chunk {
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
  /** File name within the folder. */
  readonly file: string;
  readonly begin: number;
  readonly length: number;
}

/** A tensor of a torch_dist checkpoint as all ranks together hold it. Its chunks tile it. */
export interface DistTensor {
  readonly key: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly chunks: readonly Chunk[];
}

/** What a .metadata file says. */
export interface DistMetadata {
  /** The file as it is. */
  readonly raw: Uint8Array;
  readonly tensors: readonly DistTensor[];
  /** Keys of what modules of Transformer Engine keep beside their weights. */
  readonly states: readonly string[];
  /** Tensors of the optimizer, which are not read. */
  readonly optimizerTensors: number;
}

const CLASSES = "torch.distributed.checkpoint.metadata";
// That of 405 billion parameters on thousands of ranks, optimizer included, has a tenth of it.
const MAX_BYTES = 1 << 30;
const STATE = /^(?:model\.)?(?:module\.)*decoder\.layers\..*\._extra_state\/shard_[\d.]+_[\d.]+$/;
const OPTIMIZER = /^(chained_\d+\.)?optimizer\./;

/**
 * Reads the .metadata of a torch_dist folder: a pickle, of which nothing is run.
 *
 * @throws PruneError BAD_TORCH_DIST that names the class or the tensor
 */
export async function readDistMetadata(dir: string): Promise<DistMetadata> {
  const path = join(dir, METADATA_FILE);
  const raw = await readWhole(path);
  const fields = fieldsOf(readPickle(raw, METADATA_CLASSES, path), `${CLASSES}.Metadata`, path);
  const [described, stored] = [fields.get("state_dict_metadata"), fields.get("storage_data")];
  if (!(described instanceof Map) || !(stored instanceof Map)) throw bad(path, "has no tensors or no places for them");
  const places = indexPlaces(stored, path);
  const tensors: DistTensor[] = [];
  const states: string[] = [];
  let optimizerTensors = 0;
  for (const [key, value] of described) {
    if (typeof key !== "string") throw bad(path, "names a tensor by something other than text");
    if (!(value instanceof PickledObject)) continue;
    if (value.name !== `${CLASSES}.TensorStorageMetadata`) {
      if (STATE.test(key)) states.push(key);
    } else if (OPTIMIZER.test(key)) optimizerTensors += 1;
    else tensors.push(readTensor(key, value, places, path));
  }
  return { raw, tensors, states, optimizerTensors };
}

async function readWhole(path: string): Promise<Uint8Array> {
  await using file = await RangeFile.open(path);
  if (file.bytes > MAX_BYTES) throw bad(path, `has ${file.bytes} bytes, over the cap of ${MAX_BYTES}`);
  return await file.read(0, file.bytes);
}

type Places = ReadonlyMap<string, Pick<Chunk, "file" | "begin" | "length">>;

function indexPlaces(stored: ReadonlyMap<Pickled, Pickled>, path: string): Places {
  const places = new Map<string, Pick<Chunk, "file" | "begin" | "length">>();
  for (const [index, info] of stored) {
    const at = fieldsOf(index, `${CLASSES}.MetadataIndex`, path);
    const offset = at.get("offset");
    if (offset === null || offset === undefined) continue;
    const place = fieldsOf(info, "torch.distributed.checkpoint.filesystem._StorageInfo", path);
    const [key, file, begin, length] = [at.get("fqn"), place.get("relative_path"), place.get("offset"), place.get("length")];
    if (typeof key !== "string" || typeof file !== "string") throw bad(path, "places a tensor by something other than texts");
    if (file !== basename(file) || !isSize(begin) || !isSize(length)) {
      throw bad(path, `places ${key} in ${file}, which is no file name beside it`);
    }
    if (place.get("transform_descriptors")) throw bad(path, `holds ${key} compressed, which is not read`);
    places.set(placeKey(key, sizesOf(offset, path)), { file, begin, length });
  }
  return places;
}

function placeKey(key: string, offsets: readonly number[]): string {
  return `${key} ${offsets.join()}`;
}

function readTensor(key: string, stored: PickledObject, places: Places, path: string): DistTensor {
  const fields = fieldsOf(stored, `${CLASSES}.TensorStorageMetadata`, path);
  const properties = fields.get("properties");
  const [named] = properties instanceof PickledObject && Array.isArray(properties.state) ? properties.state : [];
  const dtype = named instanceof PickledName ? TORCH_DTYPES[named.name] : undefined;
  if (dtype === undefined) throw bad(path, `gives ${key} no dtype that can be read`);
  const shape = sizesOf(fields.get("size"), path);
  const listed = fields.get("chunks");
  if (!Array.isArray(listed)) throw bad(path, `gives ${key} no chunks`);
  const chunks = listed.map((item): Chunk => {
    const chunk = fieldsOf(item, `${CLASSES}.ChunkStorageMetadata`, path);
    const [offsets, sizes] = [sizesOf(chunk.get("offsets"), path), sizesOf(chunk.get("sizes"), path)];
    const place = places.get(placeKey(key, offsets));
    const bytes = chunkBytes({ dtype }, { sizes });
    if (bytes === 0 || bytes > (place?.length ?? bytes))
      throw bad(path, `gives a chunk of ${key} ${bytes} bytes, which its archive does not hold`);
    if (!place) throw bad(path, `has no place for the chunk at [${offsets.join(", ")}] of ${key}`);
    return { offsets, sizes, ...place };
  });
  const tensor = { key, dtype, shape, chunks };
  if (!tiles(tensor)) throw bad(path, `has chunks of ${key} that do not fill its shape [${shape.join(", ")}] once`);
  return tensor;
}

/** Whether chunks are a grid: cut along each axis at the same positions everywhere, as Megatron's ranks cut tensors. */
function tiles({ shape, chunks }: DistTensor): boolean {
  if (chunks.some(({ offsets, sizes }) => offsets.length !== shape.length || sizes.length !== shape.length)) return false;
  const ends = shape.map((size, axis) => {
    const cuts = [...new Set(chunks.map(({ offsets }) => offsets[axis] ?? 0))].sort((a, b) => a - b);
    return new Map(cuts.map((cut, i) => [cut, cuts[i + 1] ?? size]));
  });
  const cells = ends.reduce((product, cuts) => product * cuts.size, 1);
  const distinct = new Set(chunks.map(({ offsets }) => offsets.join())).size;
  if (chunks.length !== cells || distinct !== cells || ends.some((cuts) => !cuts.has(0))) return false;
  return chunks.every(({ offsets, sizes }) => offsets.every((from, axis) => from + (sizes[axis] ?? 0) === ends[axis]?.get(from)));
}

/** Bytes of a chunk's elements, which its archive holds with a little around them. */
export function chunkBytes({ dtype }: Pick<DistTensor, "dtype">, { sizes }: Pick<Chunk, "sizes">): number {
  return byteLength({ dtype, shape: sizes });
}

function fieldsOf(value: Pickled | undefined, name: string, path: string): ReadonlyMap<Pickled, Pickled> {
  if (value instanceof PickledObject && value.name === name && value.state instanceof Map) return value.state;
  throw bad(path, `lacks a ${name} where one belongs`);
}

function sizesOf(value: Pickled | undefined, path: string): number[] {
  const sizes = value instanceof PickledObject && value.name === "torch.Size" ? value.args[0] : undefined;
  if (!Array.isArray(sizes) || !sizes.every(isSize)) throw bad(path, "has a size that is no list of whole numbers");
  return sizes;
}

function isSize(value: Pickled | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function bad(path: string, what: string): PruneError {
  return new PruneError("BAD_TORCH_DIST", `${path} ${what}`, { hint: "save the checkpoint again with Megatron's torch_dist format" });
}
