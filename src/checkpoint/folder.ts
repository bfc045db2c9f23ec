import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PruneError } from "../errors.js";
import type { Dtype } from "../tensor.js";
import type { Header } from "./header.js";
import { parseConfig, readDocument } from "./json.js";
import { readHeader } from "./safetensors.js";
import { checkShardContent, parseIndex } from "./shardIndex.js";

export const CONFIG_FILE = "config.json";
export const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/** A tensor of a checkpoint and the file that holds it. */
export interface CheckpointTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** File name within the folder. */
  readonly file: string;
}

/** What can be known of a checkpoint from its config and its headers. */
export interface Checkpoint {
  /** The folder, absolute. */
  readonly dir: string;
  readonly configPath: string;
  readonly configText: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Headers of the weight files in the order of their names; empty for a bare config.json. */
  readonly headers: readonly Header[];
  /** Every tensor, in the order of the files and of the bytes in them. */
  readonly tensors: readonly CheckpointTensor[];
}

/**
 * Reads a checkpoint's metadata: `path` is its folder, or a bare config.json.
 *
 * @throws PruneError PATH_NOT_FOUND, NOT_A_CHECKPOINT, BAD_CONFIG, BAD_INDEX or BAD_SAFETENSORS
 */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  const absolute = resolve(path);
  const kind = await stat(absolute).catch((cause: unknown) => {
    throw new PruneError("PATH_NOT_FOUND", `${absolute} does not exist`, { hint: "name a checkpoint folder, or a config.json", cause });
  });
  const dir = kind.isDirectory() ? absolute : dirname(absolute);
  const configPath = kind.isDirectory() ? join(absolute, CONFIG_FILE) : absolute;
  if (kind.isDirectory() && !(await isFile(configPath))) {
    throw new PruneError("NOT_A_CHECKPOINT", `${absolute} has no ${CONFIG_FILE}`, {
      hint: "name the folder that holds config.json and the .safetensors files",
    });
  }
  const configText = await readDocument(configPath, "BAD_CONFIG");
  const config = parseConfig(configText, configPath);
  const headers = kind.isDirectory() ? await readHeaders(dir) : [];
  return { dir, configPath, configText, config, headers, tensors: headers.flatMap(tensorsOf) };
}

/** Like {@link readCheckpoint}, for work that needs the weights. Throws NOT_A_CHECKPOINT on a bare config.json. */
export async function readWeightedCheckpoint(path: string): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(path);
  if (checkpoint.headers.length > 0) return checkpoint;
  throw new PruneError("NOT_A_CHECKPOINT", `${resolve(path)} has no weights`, {
    hint: `name a folder with ${SINGLE_FILE} or ${INDEX_FILE}; only inspect and plan work from a bare config.json`,
  });
}

/** Whether a regular file is there. */
export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

function tensorsOf(header: Header): CheckpointTensor[] {
  const file = basename(header.path);
  return header.tensors.map(({ name, dtype, shape, begin, end }) => ({ name, dtype, shape, bytes: end - begin, file }));
}

async function readHeaders(dir: string): Promise<Header[]> {
  if (await isFile(join(dir, INDEX_FILE))) return readIndexedHeaders(dir);
  if (await isFile(join(dir, SINGLE_FILE))) return [await readHeader(join(dir, SINGLE_FILE))];
  const others = (await readdir(dir)).filter((name) => /\.(bin|pt|pth|ckpt|gguf)$/.test(name));
  if (others.length === 0) return [];
  throw new PruneError("NOT_A_CHECKPOINT", `${dir} holds ${others[0]} but no safetensors weights; pickled files are not read`, {
    hint: "save it again with save_pretrained(), which writes safetensors",
  });
}

async function readIndexedHeaders(dir: string): Promise<Header[]> {
  const indexPath = join(dir, INDEX_FILE);
  const index = parseIndex(await readDocument(indexPath, "BAD_INDEX"), indexPath);
  const headers: Header[] = [];
  for (const file of [...index.files.keys()].sort()) {
    if (!(await isFile(join(dir, file)))) {
      throw new PruneError("BAD_INDEX", `${indexPath} names the shard ${file}, which is not there`, { hint: "download the missing shard" });
    }
    const header = await readHeader(join(dir, file));
    // Each before the next is read: an index of many links to one large file ends at the second.
    checkShardContent(index, file, header.tensors);
    headers.push(header);
  }
  return headers;
}
