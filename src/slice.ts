import { CONFIG_FILE, INDEX_FILE } from "./checkpoint/folder.js";
import { patchConfigText } from "./checkpoint/json.js";
import { formatCrc32, MANIFEST_FILE, type Manifest } from "./checkpoint/manifest.js";
import { encodePlan, hashPlan, PLAN_FILE, type PlanFile } from "./checkpoint/planFile.js";
import { carrySideFiles, checkTarget, discardStaging, openStaging, publish, type Staging, stageDocument } from "./checkpoint/staging.js";
import type { Parent } from "./inspect.js";
import { layOutShards, type ShardLayout } from "./policy/shards.js";
import { sliceTensors, type TensorSlice } from "./policy/slices.js";
import type { RunOptions } from "./progress.js";
import { byteLength } from "./tensor.js";
import { VERSION } from "./version.js";

type Slice = TensorSlice<Parent["checkpoint"]["tensors"][number]>;

/** A tensor to be cut, as it is laid out in a shard. */
export type SizedSlice = Slice & { readonly bytes: number };

/** What a cutter is told: which shards to write where, from which tensors, along which index sets. */
export interface CutJob {
  readonly sourceDir: string;
  readonly targetDir: string;
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly shards: readonly ShardLayout<SizedSlice>[];
}

/** What can cut shards on storage: a shim, or a stand-in. */
export interface Cutter {
  cutShards(job: CutJob, options?: RunOptions): Promise<readonly { file: string; bytes: number; crc32: number }[]>;
}

/**
 * Cuts a parent by a plan into a new folder, which appears whole or not at all: weights, config, index, tokenizer and other side files,
 * plan.json and prune_manifest.json.
 *
 * @param target - a folder that does not exist or is empty
 * @throws PruneError TARGET_EXISTS before any work, and what the cutter throws; then nothing is left behind
 */
export async function slice(cutter: Cutter, parent: Parent, plan: PlanFile, target: string, options: RunOptions = {}): Promise<Manifest> {
  await checkTarget(target, parent.checkpoint.dir);
  const staging = await openStaging(target);
  try {
    const job = cutJob(parent, plan, staging);
    const written = await cutter.cutShards(job, options);
    const carried = await carrySideFiles(parent.checkpoint.dir, staging, [CONFIG_FILE, PLAN_FILE, MANIFEST_FILE]);
    const manifest = describeChild(parent, plan, written, carried);
    await stageDocument(staging, PLAN_FILE, encodePlan(plan));
    await stageDocument(staging, MANIFEST_FILE, json(manifest));
    if (job.shards.length > 1) await stageDocument(staging, INDEX_FILE, json(describeIndex(job)));
    await stageDocument(staging, CONFIG_FILE, patchConfigText(parent.checkpoint.configText, plan.config));
    await publish(staging);
    return manifest;
  } catch (error) {
    await discardStaging(staging);
    throw error;
  }
}

function cutJob({ checkpoint, architecture, matched }: Parent, plan: PlanFile, staging: Staging): CutJob {
  const { indexSets, tensors: slices } = sliceTensors(architecture, plan.kept, matched?.tensors ?? []);
  const sized = slices.map((slice) => ({
    ...slice,
    bytes: byteLength({ dtype: slice.parts[0]?.source.dtype ?? "U8", shape: slice.shape }),
  }));
  // The child's shards are no larger than the parent's: whoever could hold those can hold these.
  const capacity = Math.max(...checkpoint.headers.map(({ fileBytes }) => fileBytes));
  return { sourceDir: checkpoint.dir, targetDir: staging.dir, indexSets, shards: layOutShards(sized, capacity) };
}

function describeChild(parent: Parent, plan: PlanFile, written: Awaited<ReturnType<Cutter["cutShards"]>>, carried: string[]): Manifest {
  return {
    format: "prunebridge.manifest/1",
    version: VERSION,
    planHash: hashPlan(plan),
    parent: { path: parent.checkpoint.dir, fingerprint: parent.fingerprint ?? "" },
    params: { parent: plan.parent.params, child: plan.child.params },
    shards: written.map(({ file, bytes, crc32 }) => ({ file, bytes, crc32: formatCrc32(crc32) })),
    carried: carried.sort(),
  };
}

function describeIndex({ shards }: CutJob): unknown {
  const places = shards.flatMap(({ file, tensors }) => tensors.map(({ name }): [string, string] => [name, file]));
  const bytes = shards.reduce((sum, { tensors }) => tensors.reduce((inner, tensor) => inner + tensor.bytes, sum), 0);
  return { metadata: { total_size: bytes }, weight_map: Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1))) };
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
