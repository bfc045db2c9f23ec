import { join } from "node:path";
import { storageError } from "./checkpoint/atomicFile.js";
import { formatCrc32, MANIFEST_FILE, type Manifest } from "./checkpoint/manifest.js";
import { encodePlan, hashPlan, PLAN_FILE, type PlanFile } from "./checkpoint/planFile.js";
import { leaveStaging, openStaging, publish, type Staging, settleStaging } from "./checkpoint/staging.js";
import type { ChildLayout } from "./childLayout.js";
import { PruneError } from "./errors.js";
import { formatJson, type SideContent, stageFiles } from "./sideContent.js";
import { VERSION } from "./version.js";

/** What came of a job. */
export interface CutShards {
  /** The SHA-256 is empty where it was not asked for. */
  readonly shards: readonly { readonly file: string; readonly bytes: number; readonly crc32: number; readonly sha256: Uint8Array }[];
  /** Bytes of tensors that earlier runs had written, or others at work on the same job. */
  readonly foundBytes: number;
}

/** A child to make in a folder of its own. */
export interface ChildWork {
  readonly made: ChildLayout;
  readonly plan: PlanFile;
  readonly files: SideContent;
  /** What the manifest says of where it comes from. */
  readonly origin: Pick<Manifest, "parent" | "leftOut">;
  readonly flush: boolean;
  /** Whether the same call goes on with what is left of a failed one. */
  readonly resumes: boolean;
  /** Writes the shards into a job's folder, which it makes. */
  readonly cut: (jobDir: string) => Promise<CutShards>;
  /** The manifest of this very child, where another process has made it meanwhile. */
  readonly findTheirs: () => Promise<Manifest | undefined>;
}

/** Makes a child in a hidden folder beside the target, and publishes it: the target appears whole or not at all. */
export async function makeChild(target: string, work: ChildWork): Promise<Manifest> {
  const { made, plan, files } = work;
  const staging = await openStaging(target, work.flush);
  let manifest: Manifest;
  try {
    const { shards } = await work.cut(staging.dir);
    manifest = describeChild(work, shards);
    const own = [
      [PLAN_FILE, encodePlan(plan)],
      [MANIFEST_FILE, formatJson(manifest)],
    ] as const;
    await stageFiles(staging, made, files, new Map(own));
    await publish(staging);
  } catch (error) {
    const theirs = await work.findTheirs();
    if (theirs) return theirs;
    const isKept = await leaveStaging(staging);
    throw sayWhatIsKept(staging, isKept && work.resumes, error);
  }
  await settleStaging(staging);
  return manifest;
}

/** What went wrong, and where it can go on from: where a shim died, nobody else says so. */
function sayWhatIsKept({ dir }: Staging, isKept: boolean, cause: unknown): unknown {
  const error = cause instanceof Error && "syscall" in cause ? storageError(dir, cause) : cause;
  const isSaid = !(error instanceof PruneError) || error.kind === "input" || error.code === "SOURCE_CHANGED" || error.hint.includes(dir);
  if (isSaid || !isKept) return error;
  const kept = `run the same again to go on: what was written is kept in ${dir}; or remove that folder`;
  return new PruneError(error.code, error.detail, { hint: error.hint ? `${error.hint}; ${kept}` : kept, cause });
}

function describeChild({ plan, files, origin }: ChildWork, written: CutShards["shards"]): Manifest {
  return {
    format: "prunebridge.manifest/1",
    version: VERSION,
    planHash: hashPlan(plan),
    parent: origin.parent,
    params: { parent: plan.parent.params, child: plan.child.params },
    shards: written.map(({ file, bytes, crc32, sha256 }) => ({
      file,
      bytes,
      crc32: formatCrc32(crc32),
      ...(sha256.length > 0 && { sha256: Buffer.from(sha256).toString("hex") }),
    })),
    carried: files.carried.flatMap(({ into, files }) => files.files.map((name) => join(into, name))).sort(),
    ...(origin.leftOut !== undefined && { leftOut: origin.leftOut }),
  };
}
