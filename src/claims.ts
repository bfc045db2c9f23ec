import { randomUUID } from "node:crypto";
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { unlessCancelled } from "./cancel.js";
import { isAlive, MACHINE, storageError } from "./checkpoint/atomicFile.js";
import { readJsonObject } from "./checkpoint/json.js";
import { discard, type Staging, TAKEN } from "./checkpoint/staging.js";
import { PruneError } from "./errors.js";

const BEAT_MS = 3_000;
const LOOK_MS = 100;

// As long as a cutter is waited for that gives no sign of life.
const STALE_MS = 30_000;

// A file of this name is known to be no part of the job.
const BEAT_FILE = ".claim.00000000-0000-0000-0000-000000000000";

/** A job's folder that one process alone publishes from: nobody else knows its name. */
export interface Claim {
  readonly staging: Staging;
  /** Ends the signs of life that tell others to wait. */
  readonly release: () => void;
}

/**
 * Takes the folder of a job that is done out of the hands of all who know its path, to publish from it.
 *
 * @param folderId - what the cutter tells the folder by
 * @throws PruneError TARGET_BUSY where the folder is no more, or another job's lies there
 */
export async function claimJob(staging: Staging, folderId: string): Promise<Claim> {
  const { jobDir } = staging;
  const dir = `${jobDir}.claimed-${MACHINE}-${process.pid}-${randomUUID()}`;
  // Looked at before too: a job that is at work must not see its folder vanish.
  if ((await readFolderId(jobDir)) !== folderId) throw lost(jobDir);
  await rename(jobDir, dir).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ENOENT" ? lost(jobDir) : storageError(jobDir, error);
  });
  if ((await readFolderId(dir)) !== folderId) {
    await putBack(dir, jobDir);
    throw lost(jobDir);
  }
  let beats = 0;
  const beat = (): Promise<void> => writeFile(join(dir, BEAT_FILE), String(beats++)).catch(() => {}); // its child may be out by now
  await beat();
  const beating = setInterval(beat, BEAT_MS).unref();
  return { staging: { ...staging, dir, child: join(dir, basename(staging.child)) }, release: () => clearInterval(beating) };
}

/** Gives a claimed folder back to the job, so that a later run goes on from there. */
export function unclaim({ staging: { dir, jobDir } }: Claim): Promise<void> {
  return putBack(dir, jobDir);
}

/**
 * Waits for those who are publishing from a job's folder, and gives back to the job what one left that is gone.
 *
 * @param patience - milliseconds that a process of another machine is waited for without a sign of life
 * @returns whether there were any
 * @throws PruneError CANCELLED
 */
export async function settleClaims({ jobDir }: Staging, signal?: AbortSignal, patience = STALE_MS): Promise<boolean> {
  const prefix = `${basename(jobDir)}.claimed-`;
  const names = (await readdir(dirname(jobDir))).filter((name) => name.startsWith(prefix) && !name.includes(".discarded-"));
  for (const name of names) {
    const dir = join(dirname(jobDir), name);
    await outlive(dir, name.slice(prefix.length), signal, patience);
    await putBack(dir, jobDir);
  }
  return names.length > 0;
}

/** Waits until a claim is no more, or nobody holds it. Clocks of machines differ: its signs of life are seen to change, or not. */
async function outlive(dir: string, holder: string, signal: AbortSignal | undefined, patience: number): Promise<void> {
  const [machine, pid] = holder.split("-");
  let seen: string | undefined;
  for (let since = performance.now(); performance.now() - since < patience; ) {
    if (machine === MACHINE && !isAlive(Number(pid))) return;
    const found = await readFile(join(dir, BEAT_FILE), "utf8").catch(() => undefined);
    if (found !== seen) since = performance.now();
    seen = found;
    if (!(await readdir(dirname(dir))).includes(basename(dir))) return;
    await unlessCancelled(sleep(LOOK_MS), signal);
  }
}

async function putBack(dir: string, jobDir: string): Promise<void> {
  await rm(join(dir, BEAT_FILE), { force: true });
  await rename(dir, jobDir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return; // another process was faster
    if (!TAKEN.includes(error.code ?? "")) throw storageError(jobDir, error);
    return discard(dir, jobDir);
  });
}

/** By what a cutter tells a job's folder; undefined where it is no more. */
async function readFolderId(dir: string): Promise<unknown> {
  const path = join(dir, "job.json");
  return readJsonObject(path, "STORAGE_FAILED").then(
    ({ folder }) => folder,
    () => undefined, // or another's, which is being written
  );
}

function lost(jobDir: string): PruneError {
  return new PruneError("TARGET_BUSY", `the job in ${jobDir} is no more: another took its place, or its child is being published`, {
    hint: "look what is there; run the same again where it is not what was wanted",
  });
}
