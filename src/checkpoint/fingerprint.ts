import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import type { Checkpoint } from "./folder.js";

/** SHA-256 of a checkpoint's config and of its weight files' names, sizes and headers: cheap at any size, and blind to equal-shaped edits. */
export async function fingerprint(checkpoint: Checkpoint): Promise<string> {
  const hash = createHash("sha256");
  hash.update(await readFile(checkpoint.configPath));
  for (const header of checkpoint.headers) {
    hash.update(`\n${basename(header.path)} ${header.fileBytes}\n`);
    hash.update(header.raw);
  }
  return `sha256:${hash.digest("hex")}`;
}
