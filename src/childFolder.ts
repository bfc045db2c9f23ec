import { join } from "node:path";
import { storageError } from "./checkpoint/atomicFile.js";
import { formatCrc32, MANIFEST_FILE, type Manifest } from "./checkpoint/manifest.js";
import { encodePlan, hashPlan, PLAN_FILE, type PlanFile } from "./checkpoint/planFile.js";
import { discard, leaveStaging, openStaging, publish, type Staging, settleStaging } from "./checkpoint/staging.js";
import type { ChildLayout } from "./childLayout.js";
import { type Claim, claimJob, settleClaims, unclaim } from "./claims.js";
import { PruneError } from "./errors.js";
import { formatJson, type SideContent, type StagedShards, stageFiles } from "./sideContent.js";
import { VERSION } from "./version.js";

/** What came of a job. */
export interface CutShards {
  /** The SHA-256 is empty where it was not asked for. */
  readonly shards: readonly { readonly file: string; readonly bytes: number; readonly crc32: number; readonly sha256: Uint8Array }[];
  /** Bytes of tensors that earlier runs had written, or others at work on the same job. */
  readonly foundBytes: number;
  /** Tells the job's folder from every other that is ever made under its path. */
  readonly folderId: string;
}

/** What a child's folder is made of, and says of itself. */
export interface ChildRecord {
  readonly made: StagedShards;
  /** Files that say how it was made, beside the manifest: content by name. */
  readonly own: ReadonlyMap<string, string>;
  /** What the manifest says besides its shards. */
  readonly says: Omit<Manifest, "format" | "version" | "shards" | "carried">;
}

/** A child to make in a folder of its own. */
export interface ChildWork extends ChildRecord {
  readonly files: SideContent;
  readonly flush: boolean;
  /** Whether processes share the job, and the same call goes on with what is left of a failed one; else each call starts anew, and leaves nothing. */
  readonly resumes: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Writes the shards into a job's folder, which it makes. */
  readonly cut: (jobDir: string) => Promise<CutShards>;
  /** The manifest of this very child, where another process has made it meanwhile. */
  readonly findTheirs: () => Promise<Manifest | undefined>;
}

/** A child that is published. */
interface Published {
  readonly manifest: Manifest;
  /** What is left of the job; undefined where another process made the child. */
  readonly left?: Staging;
}

/** Makes a child in a hidden folder beside the target, and publishes it: the target appears whole or not at all. */
export async function makeChild(target: string, work: ChildWork): Promise<Manifest> {
  const staging = await openStaging(target, work.flush, work.resumes);
  let published: Published;
  try {
    published = await (work.resumes ? makeShared(staging, work) : makeAlone(staging, work));
  } catch (error) {
    throw sayWhatIsKept(staging, await leaveStaging(staging), error);
  }
  if (published.left) await settleStaging(published.left);
  return published.manifest;
}

async function makeAlone(staging: Staging, work: ChildWork): Promise<Published> {
  try {
    const { shards } = await work.cut(staging.dir);
    return await publishChild(staging, work, shards);
  } catch (error) {
    await discard(staging.dir, staging.jobDir).catch(() => {}); // what failed the child may fail this too
    throw error;
  }
}

async function makeShared(staging: Staging, work: ChildWork): Promise<Published> {
  const wereOthers = await settleClaims(staging, work.signal);
  const before = wereOthers ? await work.findTheirs() : undefined;
  if (before) return { manifest: before };
  try {
    const { shards, folderId } = await work.cut(staging.dir);
    return await publishClaimed(await claimJob(staging, folderId), work, shards);
  } catch (error) {
    // Whoever took the job's folder may be about to publish.
    if (error instanceof PruneError && error.code === "TARGET_BUSY") await settleClaims(staging, work.signal);
    const manifest = await work.findTheirs();
    if (manifest) return { manifest };
    throw error;
  }
}

async function publishClaimed(claim: Claim, work: ChildWork, shards: CutShards["shards"]): Promise<Published> {
  try {
    return await publishChild(claim.staging, work, shards);
  } catch (error) {
    const manifest = await work.findTheirs();
    if (manifest) return { manifest, left: claim.staging };
    await unclaim(claim).catch(() => {}); // what failed the child may fail this too
    throw error;
  } finally {
    claim.release();
  }
}

async function publishChild(staging: Staging, work: ChildWork, shards: CutShards["shards"]): Promise<Published> {
  const manifest = describeChild(work, shards);
  await stageFiles(staging, work.made, work.files, new Map([...work.own, [MANIFEST_FILE, formatJson(manifest)]]));
  await publish(staging);
  return { manifest, left: staging };
}

/** What went wrong, and where it can go on from: where a shim died, nobody else says so. */
function sayWhatIsKept({ dir }: Staging, isKept: boolean, cause: unknown): unknown {
  const error = cause instanceof Error && "syscall" in cause ? storageError(dir, cause) : cause;
  const isSaid = !(error instanceof PruneError) || error.kind === "input" || error.code === "SOURCE_CHANGED" || error.hint.includes(dir);
  if (isSaid || !isKept) return error;
  const kept = `run the same again to go on: what was written is kept in ${dir}; or remove that folder`;
  return new PruneError(error.code, error.detail, { hint: error.hint ? `${error.hint}; ${kept}` : kept, cause });
}

/** The record of a child that is cut by a plan, which lies beside it. */
export function recordOf(made: ChildLayout, plan: PlanFile, origin: Pick<Manifest, "parent" | "leftOut">): ChildRecord {
  return {
    made,
    own: new Map([[PLAN_FILE, encodePlan(plan)]]),
    says: {
      planHash: hashPlan(plan),
      parent: origin.parent,
      params: { parent: plan.parent.params, child: plan.child.params },
      laidOut: { layout: made.layout, format: made.format },
      ...(origin.leftOut !== undefined && { leftOut: origin.leftOut }),
    },
  };
}

function describeChild({ says, files }: ChildWork, written: CutShards["shards"]): Manifest {
  const { leftOut, ...described } = says;
  return {
    format: "prunebridge.manifest/1",
    version: VERSION,
    ...described,
    shards: written.map(({ file, bytes, crc32, sha256 }) => ({
      file,
      bytes,
      crc32: formatCrc32(crc32),
      ...(sha256.length > 0 && { sha256: Buffer.from(sha256).toString("hex") }),
    })),
    carried: files.carried.flatMap(({ into, files }) => files.files.map((name) => join(into, name))).sort(),
    ...(leftOut !== undefined && { leftOut }),
  };
}
