import { stat } from "node:fs/promises";
import { join } from "node:path";
import { type Manifest, readManifest } from "./checkpoint/manifest.js";
import { type ChildFiles, filesBesideSafetensors, filesBesideSave } from "./checkpoint/megatron/childFiles.js";
import { hashPlan, type PlanFile } from "./checkpoint/planFile.js";
import { checkTarget } from "./checkpoint/staging.js";
import { type CutShards, makeChild, recordOf } from "./childFolder.js";
import { type ChildLayout, type LayoutOptions, layOutChild } from "./childLayout.js";
import { PruneError } from "./errors.js";
import type { Parent } from "./inspect.js";
import { filesBesideLayers } from "./layeredChild.js";
import type { RunOptions } from "./progress.js";
import { gatherFiles } from "./sideContent.js";

/** What a cutter is told: which shards to write where, from which tensors, along which index sets. */
export interface CutJob extends Pick<ChildLayout, "indexSets" | "shards" | "torchDist"> {
  readonly sourceDir: string;
  /** Made by the cutter; the shards go into its folder `child`, or that of the save within it. */
  readonly jobDir: string;
  readonly flush: boolean;
  readonly sha256: boolean;
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
 * TARGET_EXISTS also where it holds
 * this very child without the SHA-256 that is asked for; SOURCE_CHANGED where the parent did not stay as it was, and then nothing is kept; and what else the cutter throws
 */
export async function slice(cutter: Cutter, parent: Parent, plan: PlanFile, target: string, options: SliceOptions = {}): Promise<Manifest> {
  const { flush = true, sha256 = false, onFound } = options;
  const { dir, torchDist: stored } = parent.checkpoint;
  const made = layOutChild(parent, plan, options);
  const findTheirs = (): Promise<Manifest | undefined> => findPublished(target, parent, plan, made, sha256);
  const there = await findTheirs();
  if (there) return there;
  await checkTarget(target, dir);
  const files = await gatherFiles(await filesOf(parent, plan, made));
  const { indexSets, shards, torchDist } = made;
  const origin = {
    parent: { path: dir, fingerprint: parent.fingerprint ?? "" },
    ...(stored && stored.optimizerTensors > 0 && { leftOut: stored.optimizerTensors }),
  };
  const cut = async (jobDir: string): Promise<CutShards> => {
    const written = await cutter.cutShards({ indexSets, shards, torchDist, sourceDir: dir, jobDir, flush, sha256 }, options);
    if (written.foundBytes > 0) onFound?.(written.foundBytes);
    return written;
  };
  return makeChild(target, { ...recordOf(made, plan, origin), files, flush, resumes: true, signal: options.signal, cut, findTheirs });
}

/**
 * The manifest of a child that lies at the target already, from another process that shared the work or from an earlier call.
 *
 * @throws PruneError TARGET_EXISTS where it lacks the SHA-256 that is asked for; BAD_OPTION as {@link slice} does
 */
export async function findChild(
  parent: Parent,
  plan: PlanFile,
  target: string,
  options: LayoutOptions & Pick<SliceOptions, "sha256"> = {},
): Promise<Manifest | undefined> {
  return findPublished(target, parent, plan, layOutChild(parent, plan, options), options.sha256 ?? false);
}

async function filesOf(parent: Parent, plan: PlanFile, made: ChildLayout): Promise<ChildFiles> {
  const { checkpoint } = parent;
  if (plan.layers) return filesBesideLayers(parent, plan.layers, made);
  return made.save ? filesBesideSave(checkpoint, made.save, plan) : filesBesideSafetensors(checkpoint, plan);
}

async function findPublished(
  target: string,
  parent: Parent,
  plan: PlanFile,
  made: ChildLayout,
  sha256: boolean,
): Promise<Manifest | undefined> {
  const folder = join(target, made.save?.name ?? "");
  const found = await readManifest(folder).catch(() => undefined);
  if (!found || !isSame(found, parent, plan, made)) return undefined;
  const whole = await Promise.all(
    found.shards.map(({ file, bytes }) =>
      stat(join(folder, file)).then(
        ({ size }) => size === bytes,
        () => false,
      ),
    ),
  );
  if (!whole.every(Boolean)) return undefined;
  if (!sha256 || found.shards.every((shard) => shard.sha256 !== undefined)) return found;
  throw new PruneError("TARGET_EXISTS", `${target} holds this child already, and its manifest has no SHA-256`, {
    hint: "take it without; or remove it, or name a new folder, and slice again",
  });
}

function isSame(found: Manifest, { fingerprint }: Parent, plan: PlanFile, { shards, layout, format }: ChildLayout): boolean {
  const files = (those: readonly { file: string }[]): string => those.map(({ file }) => file).join();
  return (
    found.planHash === hashPlan(plan) &&
    found.parent.fingerprint === fingerprint &&
    found.laidOut?.layout === layout &&
    found.laidOut.format === format &&
    files(found.shards) === files(shards)
  );
}
