import { stat } from "node:fs/promises";
import { join } from "node:path";
import { PruneError } from "../../errors.js";
import type { CheckpointTensor } from "../folder.js";
import { type DistMetadata, readDistMetadata } from "./distMetadata.js";
import { viewTensors } from "./views.js";

/** The weights of a folder in Megatron's torch_dist format. */
export interface TorchDist extends DistMetadata {
  /** The files that hold tensors of the model, by name. */
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

/**
 * Reads what a torch_dist folder holds from its .metadata, and that every file is there and long enough.
 *
 * @throws PruneError BAD_TORCH_DIST or NOT_A_CHECKPOINT
 */
export async function readTorchDist(dir: string): Promise<{ torchDist: TorchDist; tensors: readonly CheckpointTensor[] }> {
  const metadata = await readDistMetadata(dir);
  const needed = new Map<string, number>();
  for (const { chunks } of metadata.tensors) {
    for (const { file, begin, length } of chunks) needed.set(file, Math.max(needed.get(file) ?? 0, begin + length));
  }
  const files = await Promise.all([...needed].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, end]) => measureFile(dir, name, end)));
  return { torchDist: { ...metadata, files }, tensors: viewTensors(metadata.tensors, dir) };
}

async function measureFile(dir: string, name: string, end: number): Promise<TorchDist["files"][number]> {
  const path = join(dir, name);
  const found = await stat(path).catch((cause: unknown) => {
    throw new PruneError("NOT_A_CHECKPOINT", `${path} is missing, which .metadata places tensors in`, {
      hint: "copy the whole folder",
      cause,
    });
  });
  if (found.isFile() && found.size >= end) return { name, bytes: found.size };
  throw new PruneError("BAD_TORCH_DIST", `${path} is ${found.size} bytes long, but .metadata places tensors up to ${end}`, {
    hint: "the file is truncated; fetch it again",
  });
}
