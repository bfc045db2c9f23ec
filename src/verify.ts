import { join } from "node:path";
import { throwIfCancelled } from "./cancel.js";
import { isFile, requireSafetensors } from "./checkpoint/folder.js";
import { checkShard, MANIFEST_FILE, readManifest } from "./checkpoint/manifest.js";
import { checkChunks } from "./checkpoint/megatron/checkChunks.js";
import { hashPlan, PLAN_FILE, readPlanFile } from "./checkpoint/planFile.js";
import { PruneError } from "./errors.js";
import { describeParent, type Inspection, readParent } from "./inspect.js";
import type { RunOptions } from "./progress.js";

/** What {@link verify} saw to be true. */
export interface Verification {
  readonly inspection: Inspection;
  /** Whether the folder says how it was cut; without a manifest only shapes could be checked. */
  readonly manifest: boolean;
  /** Bytes whose checksum was compared. */
  readonly checkedBytes: number;
}

/**
 * Checks a pruned checkpoint without Python: every tensor's shape against its config, every shard's size and checksum against the manifest,
 * and the manifest against the plan. In Megatron's torch_dist format, every tensor's bytes against the checksum that they were saved with.
 *
 * @throws PruneError VERIFY_FAILED, or as {@link inspect} does
 */
export async function verify(path: string, options: RunOptions = {}): Promise<Verification> {
  const child = await readParent(path);
  const { dir, torchDist } = child.checkpoint;
  const inspection = describeParent(child);
  let checkedBytes = 0;
  const count = (total: number) => (bytes: number) => {
    throwIfCancelled(options.signal);
    checkedBytes += bytes;
    options.onProgress?.({ phase: "verifying", done: checkedBytes, total, unit: "bytes", etaSeconds: undefined });
  };
  if (torchDist) {
    await checkChunks(dir, torchDist, count(inspection.weights?.bytes ?? 0));
    return { inspection, manifest: false, checkedBytes };
  }
  requireSafetensors(child.checkpoint);
  if (!(await isFile(join(dir, MANIFEST_FILE)))) return { inspection, manifest: false, checkedBytes: 0 };

  const manifest = await readManifest(dir);
  const plan = await readPlanFile(join(dir, PLAN_FILE));
  const differs = (what: string): never => {
    throw new PruneError("VERIFY_FAILED", `${dir}: ${what}`, { hint: "the folder was changed after it was cut; slice the parent again" });
  };
  if (hashPlan(plan) !== manifest.planHash) differs(`${PLAN_FILE} is not the plan that ${MANIFEST_FILE} names`);
  if (inspection.params !== manifest.params.child)
    differs(`config.json makes ${inspection.params} parameters, ${MANIFEST_FILE} states ${manifest.params.child}`);
  const files = new Set(manifest.shards.map(({ file }) => file));
  const stray = child.checkpoint.tensors.find(({ file }) => !files.has(file));
  if (stray) differs(`${stray.file} is not in ${MANIFEST_FILE}`);

  const total = manifest.shards.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const shard of manifest.shards) await checkShard(dir, shard, count(total));
  return { inspection, manifest: true, checkedBytes };
}
