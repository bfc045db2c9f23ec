import { stat } from "node:fs/promises";
import { join } from "node:path";
import { storageError } from "./checkpoint/atomicFile.js";
import { CONFIG_FILE, INDEX_FILE } from "./checkpoint/folder.js";
import { patchConfigText } from "./checkpoint/json.js";
import { formatCrc32, MANIFEST_FILE, type Manifest, readManifest } from "./checkpoint/manifest.js";
import { encodePlan, hashPlan, PLAN_FILE, type PlanFile } from "./checkpoint/planFile.js";
import {
  carrySideFiles,
  checkTarget,
  findSideFiles,
  leaveStaging,
  openStaging,
  publish,
  type Staging,
  settleStaging,
  stageFile,
} from "./checkpoint/staging.js";
import { PruneError } from "./errors.js";
import { type Parent, weightsOf } from "./inspect.js";
import type { LayoutName } from "./policy/families/table.js";
import { slicesInto } from "./policy/rearrange.js";
import { layOutShards, type ShardLayout } from "./policy/shards.js";
import type { TensorSlice } from "./policy/slices.js";
import type { RunOptions } from "./progress.js";
import { byteLength } from "./tensor.js";
import { VERSION } from "./version.js";

type Slice = TensorSlice<Parent["checkpoint"]["tensors"][number]>;

/** A tensor to be cut, as it is laid out in a shard. */
export type SizedSlice = Slice & { readonly bytes: number };

/** What a cutter is told: which shards to write where, from which tensors, along which index sets. */
export interface CutJob {
  readonly sourceDir: string;
  /** Made by the cutter; the shards go into its folder `child`. */
  readonly jobDir: string;
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly shards: readonly ShardLayout<SizedSlice>[];
  readonly flush: boolean;
  readonly sha256: boolean;
}

/** What came of a job. */
export interface CutShards {
  /** The SHA-256 is empty where it was not asked for. */
  readonly shards: readonly { readonly file: string; readonly bytes: number; readonly crc32: number; readonly sha256: Uint8Array }[];
  /** Bytes of tensors that earlier runs had written, or others at work on the same job. */
  readonly foundBytes: number;
}

/** What can cut shards on storage: a shim, or a stand-in. */
export interface Cutter {
  cutShards(job: CutJob, options?: RunOptions): Promise<CutShards>;
}

/** Options of {@link slice}. */
export interface SliceOptions extends RunOptions {
  /** Whether the child is on the disk when it appears. Without, it survives a crash of the processes but not of the machine. Default: true. */
  readonly flush?: boolean;
  /** Puts a SHA-256 of each shard into the manifest, which takes reading it once more. Default: false. */
  readonly sha256?: boolean;
  /** How the child is laid out: as its parent is, or by another of the family's layouts. Default: as its parent. */
  readonly layout?: LayoutName;
  /** Told of bytes of tensors that earlier runs had written, or others at work on the same child. */
  readonly onFound?: (bytes: number) => void;
}

/**
 * Cuts a parent by a plan into a new folder, which appears whole or not at all: weights, config, index, tokenizer and other side files,
 * plan.json and prune_manifest.json.
 *
 * A slicing that fails or is killed keeps what it wrote in a hidden folder beside the target, and the same call again goes on from there.
 * Several processes, on any machines, that make the same call share the work; one that comes when it is done gets the child's manifest.
 *
 * @param target - a folder that does not exist or is empty, or holds this very child
 * @throws PruneError TARGET_EXISTS, PATH_DENIED or BAD_OPTION (layout) before any work; TARGET_BUSY where another child is being cut into the target;
 * SOURCE_CHANGED where the parent did not stay as it was, and then nothing is kept; and what else the cutter throws
 */
export async function slice(cutter: Cutter, parent: Parent, plan: PlanFile, target: string, options: SliceOptions = {}): Promise<Manifest> {
  const { flush = true, sha256 = false, layout, onFound } = options;
  const { dir } = parent.checkpoint;
  const made = layOutChild(parent, plan, layout);
  const there = await findPublished(target, parent, plan, made.shards);
  if (there) return there;
  await checkTarget(target, dir);
  const sideFiles = await findSideFiles(dir, [CONFIG_FILE, PLAN_FILE, MANIFEST_FILE]);
  const staging = await openStaging(target, flush);
  const job: CutJob = { ...made, sourceDir: dir, jobDir: staging.dir, flush, sha256 };
  let manifest: Manifest;
  try {
    const { shards, foundBytes } = await cutter.cutShards(job, options);
    if (foundBytes > 0) onFound?.(foundBytes);
    await carrySideFiles(dir, staging, sideFiles);
    manifest = describeChild(parent, plan, shards, sideFiles.files);
    await stageFile(staging, PLAN_FILE, encodePlan(plan));
    await stageFile(staging, MANIFEST_FILE, json(manifest));
    if (job.shards.length > 1) await stageFile(staging, INDEX_FILE, json(describeIndex(job)));
    await stageFile(staging, CONFIG_FILE, patchConfigText(parent.checkpoint.configText, plan.config));
    await publish(staging);
  } catch (error) {
    const theirs = await findPublished(target, parent, plan, job.shards);
    if (theirs) return theirs;
    throw sayWhatIsKept(staging, await leaveStaging(staging), error);
  }
  await settleStaging(staging);
  return manifest;
}

/** The manifest of a child that lies at the target already, from another process that shared the work or from an earlier call. */
export async function findChild(parent: Parent, plan: PlanFile, target: string, layout?: LayoutName): Promise<Manifest | undefined> {
  return findPublished(target, parent, plan, layOutChild(parent, plan, layout).shards);
}

async function findPublished(target: string, parent: Parent, plan: PlanFile, shards: CutJob["shards"]): Promise<Manifest | undefined> {
  const found = await readManifest(target).catch(() => undefined);
  const files = (those: readonly { file: string }[]): string => those.map(({ file }) => file).join();
  const same =
    found?.planHash === hashPlan(plan) && found.parent.fingerprint === parent.fingerprint && files(found.shards) === files(shards);
  if (!same) return undefined;
  const whole = await Promise.all(
    found.shards.map(({ file, bytes }) =>
      stat(join(target, file)).then(
        ({ size }) => size === bytes,
        () => false,
      ),
    ),
  );
  return whole.every(Boolean) ? found : undefined;
}

/** What went wrong, and where it can go on from: where a shim died, nobody else says so. */
function sayWhatIsKept({ dir }: Staging, isKept: boolean, cause: unknown): unknown {
  const error = cause instanceof Error && "syscall" in cause ? storageError(dir, cause) : cause;
  const isSaid = !(error instanceof PruneError) || error.kind === "input" || error.code === "SOURCE_CHANGED" || error.hint.includes(dir);
  if (isSaid || !isKept) return error;
  const kept = `run the same again to go on: what was written is kept in ${dir}; or remove that folder`;
  return new PruneError(error.code, error.detail, { hint: error.hint ? `${error.hint}; ${kept}` : kept, cause });
}

function layOutChild(parent: Parent, plan: PlanFile, layout: LayoutName | undefined): Pick<CutJob, "indexSets" | "shards"> {
  const { checkpoint, architecture } = parent;
  const { indexSets, tensors: slices } = slicesInto(layout, architecture, plan.kept, weightsOf(parent));
  const sized = slices.map((slice) => ({
    ...slice,
    bytes: byteLength({ dtype: slice.parts[0]?.source.dtype ?? "U8", shape: slice.shape }),
  }));
  // The child's shards are no larger than the parent's: whoever could hold those can hold these.
  const capacity = Math.max(...checkpoint.headers.map(({ fileBytes }) => fileBytes));
  return { indexSets, shards: layOutShards(sized, capacity) };
}

function describeChild(parent: Parent, plan: PlanFile, written: CutShards["shards"], carried: readonly string[]): Manifest {
  return {
    format: "prunebridge.manifest/1",
    version: VERSION,
    planHash: hashPlan(plan),
    parent: { path: parent.checkpoint.dir, fingerprint: parent.fingerprint ?? "" },
    params: { parent: plan.parent.params, child: plan.child.params },
    shards: written.map(({ file, bytes, crc32, sha256 }) => ({
      file,
      bytes,
      crc32: formatCrc32(crc32),
      ...(sha256.length > 0 && { sha256: Buffer.from(sha256).toString("hex") }),
    })),
    carried: [...carried].sort(),
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
