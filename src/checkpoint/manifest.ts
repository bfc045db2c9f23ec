import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { readJsonObject } from "./json.js";

export const MANIFEST_FILE = "prune_manifest.json";

const shard = z.strictObject({
  file: z.string().regex(/^[\w.-]+\.safetensors$/),
  bytes: z.number().int().nonnegative(),
  crc32: z.string().regex(/^[0-9a-f]{8}$/),
  /** Where it was asked for when the child was cut. */
  sha256: z.exactOptional(z.string().regex(/^[0-9a-f]{64}$/)),
});

const manifest = z.strictObject({
  format: z.literal("prunebridge.manifest/1"),
  version: z.string(),
  planHash: z.string(),
  parent: z.strictObject({ path: z.string(), fingerprint: z.string() }),
  params: z.strictObject({ parent: z.number(), child: z.number() }),
  shards: z.array(shard).min(1),
  carried: z.array(z.string()),
});

/** What a child's folder says of itself: the plan it was cut by, the parent it was cut from, and a checksum of each shard. */
export type Manifest = z.infer<typeof manifest>;

/** Reads a child's manifest. Throws VERIFY_FAILED where it is malformed, PATH_NOT_FOUND where there is none. */
export async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, MANIFEST_FILE);
  const parsed = manifest.safeParse(await readJsonObject(path, "VERIFY_FAILED"));
  if (parsed.success) return parsed.data;
  throw new PruneError("VERIFY_FAILED", `${path} is malformed: ${z.prettifyError(parsed.error)}`);
}

/**
 * Compares a shard's size, its CRC-32 and, where the manifest has one, its SHA-256 with the manifest. The latter takes about twice the time
 * of the former. Throws VERIFY_FAILED.
 */
export async function checkShard(dir: string, stated: Manifest["shards"][number], onBytes: (bytes: number) => void): Promise<void> {
  const path = join(dir, stated.file);
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new PruneError("VERIFY_FAILED", `${path} is missing`, { hint: "slice the parent again" });
  if (found.size !== stated.bytes) {
    throw new PruneError("VERIFY_FAILED", `${path} is ${found.size} bytes long; the manifest states ${stated.bytes}`, {
      hint: "slice the parent again",
    });
  }
  let crc = 0;
  const hash = stated.sha256 === undefined ? undefined : createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 4 << 20 })) {
    crc = crc32(chunk as Buffer, crc);
    hash?.update(chunk as Buffer);
    onBytes((chunk as Buffer).length);
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
