import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { parseJsonObject, readDocument } from "./json.js";
import { openRegularFile } from "./regularFile.js";

export const MANIFEST_FILE = "prune_manifest.json";

/** Stands for the parent's folder in the manifest of a child that was saved from the live weights of a job. */
export const LIVE_PARENT = "";

const shard = z.strictObject({
  file: z.string().regex(/^[\w.-]+\.(safetensors|distcp)$/),
  bytes: z.number().int().nonnegative(),
  crc32: z.string().regex(/^[0-9a-f]{8}$/),
  /** Where it was asked for when the child was cut. */
  sha256: z.exactOptional(z.string().regex(/^[0-9a-f]{64}$/)),
});

const manifest = z.strictObject({
  format: z.literal("prunebridge.manifest/1"),
  version: z.string(),
  /** Of the plan that lies beside it; a network of channels that were traced has none. */
  planHash: z.exactOptional(z.string()),
  /** How many channels each hyperparameter of a traced network keeps, and in which mode that was found. */
  pruned: z.exactOptional(z.strictObject({ mode: z.string(), sizes: z.record(z.string(), z.number().int().positive()) })),
  parent: z.strictObject({ path: z.string(), fingerprint: z.string() }),
  params: z.strictObject({ parent: z.number(), child: z.number() }),
  /** By which names, and in which format of files. Older manifests do not say. */
  laidOut: z.exactOptional(z.strictObject({ layout: z.string(), format: z.string() })),
  shards: z.array(shard).min(1),
  carried: z.array(z.string()),
  /** Tensors of the parent's optimizer, which the child has not. */
  leftOut: z.exactOptional(z.number().int().positive()),
});

/** What a child's folder says of itself: the plan it was cut by, the parent it was cut from, and a checksum of each shard. */
export type Manifest = z.infer<typeof manifest>;

/** Reads a child's manifest. Throws VERIFY_FAILED where it is malformed, PATH_NOT_FOUND where there is none. */
export async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, MANIFEST_FILE);
  return parseManifest(await readDocument(path, "VERIFY_FAILED"), path);
}

/** Parses the text of a manifest. Throws VERIFY_FAILED, naming `where`. */
export function parseManifest(text: string, where: string): Manifest {
  const parsed = manifest.safeParse(parseJsonObject(text, where, "VERIFY_FAILED"));
  if (parsed.success) return parsed.data;
  throw new PruneError("VERIFY_FAILED", `${where} is malformed: ${z.prettifyError(parsed.error)}`);
}

/**
 * Compares a shard's size, its CRC-32 and, where the manifest has one, its SHA-256 with the manifest. The latter takes about twice the time
 * of the former. Throws VERIFY_FAILED.
 */
export async function checkShard(dir: string, stated: Manifest["shards"][number], onBytes: (bytes: number) => void): Promise<void> {
  const path = join(dir, stated.file);
  const file = await openRegularFile(path).catch((cause: unknown) => {
    throw new PruneError("VERIFY_FAILED", `${path} is missing`, { hint: "slice the parent again", cause });
  });
  try {
    const { size } = await file.stat();
    if (size !== stated.bytes) {
      throw new PruneError("VERIFY_FAILED", `${path} is ${size} bytes long; the manifest states ${stated.bytes}`, {
        hint: "slice the parent again",
      });
    }
    await checkSums(file, path, stated, onBytes);
  } finally {
    await file.close();
  }
}

async function checkSums(
  file: FileHandle,
  path: string,
  stated: Manifest["shards"][number],
  onBytes: (bytes: number) => void,
): Promise<void> {
  let crc = 0;
  const hash = stated.sha256 === undefined ? undefined : createHash("sha256");
  for await (const chunk of file.createReadStream({ highWaterMark: 4 << 20, autoClose: false }) as AsyncIterable<Buffer>) {
    crc = crc32(chunk, crc);
    hash?.update(chunk);
    onBytes(chunk.length);
  }
  checkSum(path, "CRC-32", formatCrc32(crc), stated.crc32);
  if (hash) checkSum(path, "SHA-256", hash.digest("hex"), stated.sha256);
}

function checkSum(path: string, kind: string, found: string, stated: string | undefined): void {
  if (found === stated) return;
  throw new PruneError("VERIFY_FAILED", `${path} has ${kind} ${found}; the manifest states ${stated}`, {
    hint: "the file changed after it was cut",
  });
}

/** A CRC-32 as eight hexadecimal digits. */
export function formatCrc32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
