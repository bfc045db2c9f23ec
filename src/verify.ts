import { join } from "node:path";
import { throwIfCancelled } from "./cancel.js";
import { ARCHITECTURE_FILE } from "./checkpoint/architectureFile.js";
import { CONFIG_FILE, isFile, requireWeights } from "./checkpoint/folder.js";
import { checkShard, LIVE_PARENT, MANIFEST_FILE, type Manifest, readManifest } from "./checkpoint/manifest.js";
import { checkChunks } from "./checkpoint/megatron/checkChunks.js";
import { hashPlan, PLAN_FILE, type PlanFile, readPlanFile } from "./checkpoint/planFile.js";
import { PruneError } from "./errors.js";
import { describeParent, type Inspection, type Parent, readParent, readWeightedParent } from "./inspect.js";
import { readPlanFor } from "./plan.js";
import type { RunOptions } from "./progress.js";
import { type ComparedValues, type ValueOptions, verifyValues } from "./verifyValues.js";

/** What {@link verify} looks at. */
export interface VerifyOptions extends RunOptions, ValueOptions {
  /** The parent's folder. Default: where the manifest says that it was, if it is there still. */
  readonly parent?: string;
}

/** What {@link verify} saw to be true. */
export interface Verification {
  readonly inspection: Inspection;
  /** Whether the folder says how it was cut; without a manifest only shapes could be checked. */
  readonly manifest: boolean;
  /** Bytes whose checksum was compared. */
  readonly checkedBytes: number;
  /** What was compared with the parent, or why nothing was. */
  readonly values: ComparedValues | { readonly unchecked: string };
}

/**
 * Checks a pruned checkpoint without Python: every tensor's shape against its config, every shard's size and checksums against the manifest,
 * the manifest against the plan, and, where the parent is at hand, values against the parent's at the positions that the plan keeps. What
 * Megatron saved has no manifest: every tensor's bytes are compared with the checksum that they were saved with.
 *
 * @throws PruneError VERIFY_FAILED, also where values are asked for and cannot be compared; CHECKPOINT_MISMATCH where another parent is given; or as {@link inspect} does
 */
export async function verify(path: string, options: VerifyOptions = {}): Promise<Verification> {
  checkOptions(options);
  const child = await readParent(path);
  const { dir, torchDist } = child.checkpoint;
  const inspection = describeParent(child);
  requireWeights(child.checkpoint);
  if (!(await isFile(join(dir, MANIFEST_FILE)))) {
    if (asksForValues(options))
      throw new PruneError("VERIFY_FAILED", `${dir} has no ${MANIFEST_FILE}, which says what its values come from`, {
        hint: "values can be compared in folders that prunebridge wrote",
      });
    const total = inspection.weights?.bytes ?? 0;
    const checkedBytes = torchDist ? await countBytes(total, options, (tick) => checkChunks(dir, torchDist, tick)) : 0;
    return { inspection, manifest: false, checkedBytes, values: { unchecked: `there is no ${MANIFEST_FILE}` } };
  }
  const manifest = await readManifest(dir);
  checkManifest(child, inspection, manifest, await readPlanFile(join(dir, PLAN_FILE)));
  const parent = await findParent(manifest, options.parent);
  const checkedBytes = await checkShards(dir, manifest, options);
  if ("unchecked" in parent) {
    if (!asksForValues(options)) return { inspection, manifest: true, checkedBytes, values: parent };
    throw new PruneError("VERIFY_FAILED", `the values of ${dir} cannot be compared: ${parent.unchecked}`, {
      hint: "name the parent's folder",
    });
  }
  const plan = await readPlanFor(parent, join(dir, PLAN_FILE));
  return { inspection, manifest: true, checkedBytes, values: await verifyValues(child, parent, plan, options) };
}

/** Whether a caller who gets no comparison of values would be deceived. */
function asksForValues({ parent, rows, full = false }: VerifyOptions): boolean {
  return full || rows !== undefined || parent !== undefined;
}

function checkOptions({ rows, full }: VerifyOptions): void {
  if (rows !== undefined && full)
    throw new PruneError("BAD_OPTION", "rows and full exclude each other", { hint: "full compares every row" });
  if (rows === undefined || (Number.isSafeInteger(rows) && rows > 0)) return;
  throw new PruneError("BAD_OPTION", `rows is ${rows}; it must be a positive integer`);
}

function checkManifest(
  { checkpoint: { dir, tensors, torchDist } }: Parent,
  inspection: Inspection,
  manifest: Manifest,
  plan: PlanFile,
): void {
  const differs = (what: string): never => {
    throw new PruneError("VERIFY_FAILED", `${dir}: ${what}`, { hint: "the folder was changed after it was cut; slice the parent again" });
  };
  if (hashPlan(plan) !== manifest.planHash) differs(`${PLAN_FILE} is not the plan that ${MANIFEST_FILE} names`);
  if (inspection.params !== manifest.params.child)
    differs(
      `${inspection.layers ? ARCHITECTURE_FILE : CONFIG_FILE} makes ${inspection.params} parameters, ${MANIFEST_FILE} states ${manifest.params.child}`,
    );
  const files = new Set(manifest.shards.map(({ file }) => file));
  const holding = torchDist?.files.map(({ name }) => name) ?? tensors.map(({ file }) => file);
  const stray = holding.find((file) => !files.has(file));
  if (stray !== undefined) differs(`${stray} is not in ${MANIFEST_FILE}`);
}

/** The parent, or why it cannot be had: only one that the caller names has to be there, and to be the right one. */
async function findParent({ parent }: Manifest, given: string | undefined): Promise<Parent | { unchecked: string }> {
  const path = given ?? parent.path;
  const isOfJob = parent.path === LIVE_PARENT;
  if (given === undefined && isOfJob) return { unchecked: "it was saved from the live weights of a job" };
  const found = await readWeightedParent(path).catch((error: unknown) => {
    if (given === undefined && error instanceof PruneError) return error;
    throw error;
  });
  if (found instanceof PruneError) return { unchecked: `the parent cannot be read: ${found.detail}` };
  if (found.fingerprint === parent.fingerprint) return found;
  const detail = `${path} is not the parent that the child was cut from (${found.fingerprint}, not ${parent.fingerprint})`;
  if (given === undefined) return { unchecked: detail };
  throw new PruneError("CHECKPOINT_MISMATCH", detail, {
    hint: isOfJob ? "it was saved from the live weights of a job" : `name the folder of the parent: it was at ${parent.path}`,
  });
}

async function checkShards(dir: string, { shards }: Manifest, options: RunOptions): Promise<number> {
  const total = shards.reduce((sum, { bytes }) => sum + bytes, 0);
  return countBytes(total, options, async (tick) => {
    for (const shard of shards) await checkShard(dir, shard, tick);
  });
}

/** Counts the bytes of a check while it runs. */
async function countBytes(
  total: number,
  { signal, onProgress }: RunOptions,
  check: (tick: (bytes: number) => void) => Promise<void>,
): Promise<number> {
  let done = 0;
  await check((bytes) => {
    throwIfCancelled(signal);
    done += bytes;
    onProgress?.({ phase: "verifying", done, total, unit: "bytes", etaSeconds: undefined });
  });
  return done;
}
