import { createHash, type Hash } from "node:crypto";
import { basename, join } from "node:path";
import type { Checkpoint } from "./folder.js";
import { RangeFile } from "./megatron/rangeFile.js";
import type { TorchDist } from "./megatron/torchDist.js";
import { readTensorStarts } from "./safetensors.js";

// Training moves every tensor, so the beginnings of some tell a network from another one of its shape.
const SAMPLES_PER_FILE = 32;
const SAMPLE_BYTES = 1024;

/**
 * SHA-256 of a checkpoint's config, of its weight files' names, sizes and headers (or .metadata), and of some bytes of some tensors of each:
 * cheap at any size, and blind to edits elsewhere.
 */
export async function fingerprint(checkpoint: Pick<Checkpoint, "dir" | "configText" | "headers" | "torchDist">): Promise<string> {
  const hash = createHash("sha256");
  hash.update(checkpoint.configText);
  for (const header of checkpoint.headers) {
    hash.update(`\n${basename(header.path)} ${header.fileBytes}\n`);
    hash.update(header.raw);
    for (const bytes of await readTensorStarts(header, spread(header.tensors), SAMPLE_BYTES)) hash.update(bytes);
  }
  if (checkpoint.torchDist) await hashTorchDist(hash, checkpoint.dir, checkpoint.torchDist);
  return `sha256:${hash.digest("hex")}`;
}

/** The end of a chunk's archive has the CRC-32 of all of its bytes. */
async function hashTorchDist(hash: Hash, dir: string, { raw, files, tensors }: TorchDist): Promise<void> {
  hash.update(raw);
  const chunks = tensors.flatMap((tensor) => tensor.chunks);
  for (const { name, bytes } of files) {
    hash.update(`\n${name} ${bytes}\n`);
    await using file = await RangeFile.open(join(dir, name));
    for (const { begin, length } of spread(chunks.filter((chunk) => chunk.file === name))) {
      const sampled = Math.min(SAMPLE_BYTES, length);
      hash.update(await file.read(begin + length - sampled, sampled));
    }
  }
}

/** Some of what a file holds, evenly spread over it. */
function spread<T>(held: readonly T[]): T[] {
  const step = Math.max(1, held.length / SAMPLES_PER_FILE);
  return held.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step));
}
