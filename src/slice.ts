import { stat } from "node:fs/promises";
import { join } from "node:path";
import { storageError } from "./checkpoint/atomicFile.js";
import { formatCrc32, MANIFEST_FILE, type Manifest, readManifest } from "./checkpoint/manifest.js";
import { encodePlan, hashPlan, PLAN_FILE, type PlanFile } from "./checkpoint/planFile.js";
import { checkTarget, leaveStaging, openStaging, publish, type Staging, settleStaging } from "./checkpoint/staging.js";
import { type ChildLayout, type LayoutOptions, layOutChild } from "./childLayout.js";
import { PruneError } from "./errors.js";
import type { Parent } from "./inspect.js";
import type { RunOptions } from "./progress.js";
import { formatJson, gatherFiles, type SideContent, stageFiles } from "./sideContent.js";
import { VERSION } from "./version.js";

/** What a cutter is told: which shards to write where, from which tensors, along which index sets. */
export interface CutJob extends Pick<ChildLayout, "indexSets" | "shards" | "torchDist"> {
  readonly sourceDir: string;
  /** Made by the cutter; the shards go into its folder `child`, or that of the save within it. */
  readonly jobDir: string;
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
export interface SliceOptions extends RunOptions, LayoutOptions {
  /** Whether the child is on the disk when it appears. Without, it survives a crash of the processes but not of the machine. Default: true. */
  readonly flush?: boolean;
  /** Puts a SHA-256 of each shard into the manifest, which takes reading it once more. Default: false. */
  readonly sha256?: boolean;
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
 * @throws PruneError TARGET_EXISTS, PATH_DENIED or BAD_OPTION (layout or format) before any work; TARGET_BUSY where another child is being cut into the target;
 * SOURCE_CHANGED where the parent did not stay as it was, and then nothing is kept; and what else the cutter throws
 */
export async function slice(cutter: Cutter, parent: Parent, plan: PlanFile, target: string, options: SliceOptions = {}): Promise<Manifest> {
  const { flush = true, sha256 = false, onFound } = options;
  const { dir } = parent.checkpoint;
  const made = layOutChild(parent, plan, options);
  const there = await findPublished(target, parent, plan, made);
  if (there) return there;
  await checkTarget(target, dir);
  const files = await gatherFiles(parent, plan, made);
  const staging = await openStaging(target, flush);
  const { indexSets, shards, torchDist } = made;
  let manifest: Manifest;
  try {
    const cut = await cutter.cutShards({ indexSets, shards, torchDist, sourceDir: dir, jobDir: staging.dir, flush, sha256 }, options);
    if (cut.foundBytes > 0) onFound?.(cut.foundBytes);
    manifest = describeChild(parent, plan, cut.shards, files.carried);
    await stageFiles(
      staging,
      made,
      files,
      new Map([
        [PLAN_FILE, encodePlan(plan)],
        [MANIFEST_FILE, formatJson(manifest)],
      ]),
    );
    await publish(staging);
  } catch (error) {
    const theirs = await findPublished(target, parent, plan, made);
    if (theirs) return theirs;
    throw sayWhatIsKept(staging, await leaveStaging(staging), error);
  }
  await settleStaging(staging);
  return manifest;
}

/** The manifest of a child that lies at the target already, from another process that shared the work or from an earlier call. */
export async function findChild(
  parent: Parent,
  plan: PlanFile,
  target: string,
  options: LayoutOptions = {},
): Promise<Manifest | undefined> {
  return findPublished(target, parent, plan, layOutChild(parent, plan, options));
}

async function findPublished(target: string, parent: Parent, plan: PlanFile, { shards, save }: ChildLayout): Promise<Manifest | undefined> {
  const folder = join(target, save?.name ?? "");
  const found = await readManifest(folder).catch(() => undefined);
  const files = (those: readonly { file: string }[]): string => those.map(({ file }) => file).join();
  const same =
    found?.planHash === hashPlan(plan) && found.parent.fingerprint === parent.fingerprint && files(found.shards) === files(shards);
  if (!same) return undefined;
  const whole = await Promise.all(
    found.shards.map(({ file, bytes }) =>
      stat(join(folder, file)).then(
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

function describeChild(parent: Parent, plan: PlanFile, written: CutShards["shards"], carried: SideContent["carried"]): Manifest {
  const { torchDist } = parent.checkpoint;
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
    carried: carried.flatMap(({ into, files }) => files.files.map((name) => join(into, name))).sort(),
    ...(torchDist && torchDist.optimizerTensors > 0 && { leftOut: torchDist.optimizerTensors }),
  };
}
