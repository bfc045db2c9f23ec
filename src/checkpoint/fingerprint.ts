import { createHash } from "node:crypto";
import { basename } from "node:path";
import type { Checkpoint } from "./folder.js";
import type { Header } from "./header.js";
import { readTensorStarts } from "./safetensors.js";

// Training moves every tensor, so the beginnings of some tell a network from another one of its shape.
const SAMPLES_PER_FILE = 32;
const SAMPLE_BYTES = 1024;

/**
 * SHA-256 of a checkpoint's config, of its weight files' names, sizes and headers, and of the first bytes of some tensors of each: cheap at
 * any size, and blind to edits elsewhere.
 */
export async function fingerprint(checkpoint: Checkpoint): Promise<string> {
  const hash = createHash("sha256");
  hash.update(checkpoint.configText);
  for (const header of checkpoint.headers) {
    hash.update(`\n${basename(header.path)} ${header.fileBytes}\n`);
    hash.update(header.raw);
    for (const bytes of await readTensorStarts(header, spread(header.tensors), SAMPLE_BYTES)) hash.update(bytes);
  }
  return `sha256:${hash.digest("hex")}`;
}

/** Some tensors, evenly spread over a file. */
function spread(tensors: Header["tensors"]): Header["tensors"] {
  const step = Math.max(1, tensors.length / SAMPLES_PER_FILE);
  return tensors.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step));
}
