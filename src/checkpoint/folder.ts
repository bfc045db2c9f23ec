import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PruneError } from "../errors.js";
import type { Dtype } from "../tensor.js";
import { ARCHITECTURE_FILE, type ArchitectureFile, readArchitectureFile } from "./architectureFile.js";
import type { Header } from "./header.js";
import { parseConfig, readDocument } from "./json.js";
import { findMegatronFolder, isTorchDist, type MegatronFolder } from "./megatron/locate.js";
import { readModelConfigText } from "./megatron/modelConfig.js";
import { readTorchDist, type TorchDist } from "./megatron/torchDist.js";
import type { View } from "./megatron/views.js";
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
  /** Which part of a stored tensor it is; undefined where it is all of the one of its name. */
  readonly view?: View;
}

/** What can be known of a checkpoint from its config and its headers. */
export interface Checkpoint {
  /** The folder, absolute. */
  readonly dir: string;
  readonly configPath: string;
  readonly configText: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Headers of the safetensors files in the order of their names; empty where there are none. */
  readonly headers: readonly Header[];
  /** Weights in Megatron's torch_dist format; undefined where there are none. */
  readonly torchDist: TorchDist | undefined;
  /** Where its layers have sizes of their own: the file that says so, in the place of a config.json. */
  readonly layered?: ArchitectureFile;
  /** Where it is what Megatron-LM, Megatron-Bridge or NeMo saved: what else is in its folder. */
  readonly megatron?: MegatronFolder;
  /** Every tensor, in the order of the files and of the bytes in them. */
  readonly tensors: readonly CheckpointTensor[];
}

/**
 * Reads a checkpoint's metadata: `path` is the folder of a Hugging Face, Megatron-LM, Megatron-Bridge or NeMo 2 checkpoint, or a bare
 * config.json.
 *
 * @throws PruneError PATH_NOT_FOUND, NOT_A_CHECKPOINT, BAD_CONFIG, BAD_INDEX, BAD_SAFETENSORS or BAD_TORCH_DIST
 */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  const absolute = resolve(path);
  const kind = await stat(absolute).catch((cause: unknown) => {
    throw new PruneError("PATH_NOT_FOUND", `${absolute} does not exist`, { hint: "name a checkpoint folder, or a config.json", cause });
  });
  if (!kind.isDirectory()) return { ...(await readConfig(dirname(absolute), absolute)), headers: [], torchDist: undefined, tensors: [] };
  const names = new Set(await readdir(absolute));
  if (names.has(CONFIG_FILE) && !isTorchDist(names)) {
    const config = await readConfig(absolute, join(absolute, CONFIG_FILE));
    return { ...config, ...(await readSafetensors(absolute)) };
  }
  if (names.has(ARCHITECTURE_FILE)) return readLayered(absolute);
  const megatron = await findMegatronFolder(absolute);
  if (megatron) return readMegatron(megatron);
  throw new PruneError("NOT_A_CHECKPOINT", `${absolute} has no ${CONFIG_FILE}, and nothing of a Megatron or NeMo checkpoint`, {
    hint: "name the folder that holds config.json and the .safetensors files, or the root of a Megatron checkpoint",
  });
}

async function readConfig(dir: string, configPath: string): Promise<Pick<Checkpoint, "dir" | "configPath" | "configText" | "config">> {
  const configText = await readDocument(configPath, "BAD_CONFIG");
  return { dir, configPath, configText, config: parseConfig(configText, configPath) };
}

async function readSafetensors(dir: string): Promise<Pick<Checkpoint, "headers" | "torchDist" | "tensors">> {
  const headers = await readHeaders(dir);
  return { headers, torchDist: undefined, tensors: headers.flatMap(tensorsOf) };
}

/** A pruned folder that no config describes; its own file has the parent's. */
async function readLayered(dir: string): Promise<Checkpoint> {
  const configPath = join(dir, ARCHITECTURE_FILE);
  const layered = await readArchitectureFile(configPath);
  if (layered.source.entrypoint !== undefined) {
    throw new PruneError("NOT_A_CHECKPOINT", `${dir} is a pruned network that ${layered.source.entrypoint} builds`, {
      hint: "open it with bridge.load({ checkpoint })",
    });
  }
  const { configText } = layered.source;
  return { dir, configPath, configText, config: parseConfig(configText, configPath), ...(await readSafetensors(dir)), layered };
}

/** What states a Megatron model's sizes becomes a config under Megatron's own names. */
async function readMegatron(folder: MegatronFolder): Promise<Checkpoint> {
  const { dir, names, config } = folder;
  const weights = isTorchDist(names) ? { headers: [], ...(await readTorchDist(dir)) } : await readSafetensors(dir);
  const configText = await readModelConfigText(folder, weights.tensors);
  return { dir, configPath: config.path, configText, config: parseConfig(configText, config.path), ...weights, megatron: folder };
}

/** Like {@link readCheckpoint}, for work that needs the weights. Throws NOT_A_CHECKPOINT on a bare config.json. */
export async function readWeightedCheckpoint(path: string): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(path);
  requireWeights(checkpoint);
  return checkpoint;
}

/** Throws NOT_A_CHECKPOINT where a checkpoint has no weights. */
export function requireWeights({ dir, headers, torchDist }: Checkpoint): void {
  if (headers.length > 0 || torchDist) return;
  throw new PruneError("NOT_A_CHECKPOINT", `${dir} has no weights`, {
    hint: `name a folder with ${SINGLE_FILE} or ${INDEX_FILE}; only inspect and plan work from a bare config.json`,
  });
}

/** Throws NOT_A_CHECKPOINT where a checkpoint's weights are not in safetensors, which is what a shim of one process opens. */
export function requireRunnable(checkpoint: Checkpoint): void {
  requireWeights(checkpoint);
  const { dir, layered } = checkpoint;
  if (layered) {
    throw new PruneError("NOT_A_CHECKPOINT", `the layers of ${dir} have sizes of their own, which no config states`, {
      hint: "open it with bridge.load({ checkpoint }), which reads its architecture.json",
    });
  }
  if (!checkpoint.torchDist) return;
  throw new PruneError("NOT_A_CHECKPOINT", `${dir} has its weights in Megatron's torch_dist format, which no shim of one process runs`, {
    hint: `convert it with \`slice --layout huggingface\`; or start its job, \`torchrun -m prunebridge_shim megatron --checkpoint ${dir}\`, and attach to that`,
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
