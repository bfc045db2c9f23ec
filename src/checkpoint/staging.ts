import { randomUUID } from "node:crypto";
import { constants, createReadStream, type Stats } from "node:fs";
import { access, mkdir, open, readdir, realpath, rename, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Readable } from "node:stream";
import { PruneError } from "../errors.js";
import { storageError, syncFolder } from "./atomicFile.js";

/** Where a child is made, by one process or several: the folder of a slicing job, beside the target, under a name that no loader looks for. */
export interface Staging {
  readonly target: string;
  /** Where the job's folder is made, and found by all who share the job. */
  readonly jobDir: string;
  /** Where it is now. The cutter makes it, keeps what is done in it, and removes it where nothing is. */
  readonly dir: string;
  /** Within it, what becomes the target. */
  readonly child: string;
  /** The outermost folder that had to be made above the target. */
  readonly outermost: string | undefined;
  /** Whether files are flushed to storage. */
  readonly flush: boolean;
}

// Everything that has to do with weights is written anew; the rest belongs to the child as it is.
const WEIGHTS = /(\.safetensors|\.safetensors\.index\.json|\.distcp|\.bin|\.bin\.index\.json|\.ckpt|\.gguf|\.h5|\.msgpack)$/;
const PICKLED = /\.(pt|pth)$/;

// What rename() gives for a folder's name that is no empty folder's.
export const TAKEN = ["ENOTEMPTY", "EEXIST", "ENOTDIR"];

/**
 * Refuses a target that holds something, is the parent itself or within it, or cannot be written, before any work is done.
 *
 * @throws PruneError TARGET_EXISTS or PATH_DENIED
 */
export async function checkTarget(target: string, parent?: string): Promise<void> {
  const absolute = resolve(target);
  const there = await stat(absolute).catch(() => undefined);
  const source = parent === undefined ? undefined : await stat(parent);
  if (source && parent !== undefined) await checkOutside(dirname(absolute), source, parent);
  if (!there) return checkWritable(absolute);
  // Links and mounts make one folder of two names.
  if (there.dev === source?.dev && there.ino === source.ino) {
    throw new PruneError("TARGET_EXISTS", `${absolute} is the parent checkpoint itself`, {
      hint: "name a new folder: the parent is never changed",
    });
  }
  if (!there.isDirectory()) throw new PruneError("TARGET_EXISTS", `${absolute} is a file`, { hint: "name a new folder" });
  await checkWritable(absolute);
  if ((await readdir(absolute)).length > 0) {
    throw new PruneError("TARGET_EXISTS", `${absolute} exists and is not empty`, { hint: "name a new folder, or remove this one first" });
  }
}

async function checkOutside(folder: string, source: Stats, parent: string): Promise<void> {
  const found = await realpath(folder).catch(() => undefined);
  if (found === undefined) return checkOutside(dirname(folder), source, parent); // it is yet to be made
  for (let above = found; ; above = dirname(above)) {
    const { dev, ino } = await stat(above);
    if (dev === source.dev && ino === source.ino) {
      throw new PruneError("PATH_DENIED", `${folder} lies within the parent checkpoint ${parent}`, {
        hint: "name a folder outside of it: the parent is never changed",
      });
    }
    if (above === dirname(above)) return;
  }
}

/**
 * Refuses a path that is to be written later and that lies where nothing can be written.
 *
 * @throws PruneError PATH_DENIED
 */
export async function checkWritable(path: string): Promise<void> {
  const folder = dirname(resolve(path));
  const found = await stat(folder).catch((error: NodeJS.ErrnoException) => {
    // A folder that is missing will be made; one below a file cannot be.
    if (error.code !== "ENOENT") throw new PruneError("PATH_DENIED", `${folder} cannot be a folder: ${error.message}`, { cause: error });
  });
  if (!found) return checkWritable(folder);
  if (!found.isDirectory()) throw new PruneError("PATH_DENIED", `${folder} is no folder`, { hint: "name a path within a folder" });
  await access(folder, constants.W_OK | constants.X_OK).catch((cause: unknown) => {
    throw new PruneError("PATH_DENIED", `${folder} cannot be written by this user`, {
      hint: "name another place, or have its rights changed",
      cause,
    });
  });
}

/**
 * Makes the folders above the target, so that the job's own can be made beside it.
 *
 * @param isShared - whether all jobs of one target have one folder, or this one its own
 */
export async function openStaging(target: string, flush: boolean, isShared = true): Promise<Staging> {
  const absolute = resolve(target);
  const dir = join(dirname(absolute), `.${basename(absolute)}.prunebridge-partial${isShared ? "" : `-${randomUUID()}`}`);
  try {
    const outermost = await mkdir(dirname(absolute), { recursive: true });
    return { target: absolute, jobDir: dir, dir, child: join(dir, "child"), outermost, flush };
  } catch (cause) {
    throw storageError(dirname(absolute), cause);
  }
}

/** After a failure: says whether the job's folder was kept, and removes the folders that were made above it where nothing is in them. */
export async function leaveStaging({ target, dir, outermost }: Staging): Promise<boolean> {
  for (let folder = target; outermost !== undefined && folder !== outermost; ) {
    folder = dirname(folder);
    await rmdir(folder).catch(() => {});
  }
  return stat(dir).then(
    () => true,
    () => false,
  );
}

/** What a child has from its parent besides weights: paths within the parent's folder. */
export interface SideFiles {
  /** Each behind the one that it lies in. */
  readonly folders: readonly string[];
  readonly files: readonly string[];
}

/**
 * Finds tokenizer, generation config, licence and remote code: every file and folder of the parent that holds no weights.
 *
 * @param replaced - paths that the child has files of its own for
 * @param pickled - whether pickled files are known to be no weights
 * @throws PruneError PATH_DENIED for one that cannot be read
 */
export async function findSideFiles(parent: string, replaced: readonly string[], pickled = false): Promise<SideFiles> {
  const folders: string[] = [];
  const files: string[] = [];
  const find = async (within: string): Promise<void> => {
    for (const entry of await readdir(join(parent, within), { withFileTypes: true })) {
      const name = join(within, entry.name);
      if (entry.name.startsWith(".") || WEIGHTS.test(entry.name) || replaced.includes(name)) continue;
      if (PICKLED.test(entry.name) && !pickled) continue;
      const kind = await stat(join(parent, name));
      if (!kind.isDirectory() && !kind.isFile()) continue;
      await checkReadable(join(parent, name));
      if (kind.isFile()) files.push(name);
      else {
        folders.push(name);
        await find(name);
      }
    }
  };
  await find("");
  return { folders, files };
}

async function checkReadable(path: string): Promise<void> {
  await access(path, constants.R_OK).catch((cause: unknown) => {
    throw new PruneError("PATH_DENIED", `${path} cannot be read by this user`, {
      hint: "the child gets a copy: have its rights changed",
      cause,
    });
  });
}

/** Copies side files into the child, or into a folder within it. */
export async function carrySideFiles(parent: string, staging: Staging, { folders, files }: SideFiles, into = ""): Promise<void> {
  const made = [...(into === "" ? [] : [into]), ...folders.map((folder) => join(into, folder))];
  for (const folder of made) {
    // Not what lies above: where another process has published the child, that is gone for good.
    await mkdir(join(staging.child, folder)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  }
  for (const file of files) await stageFile(staging, join(into, file), () => createReadStream(join(parent, file)));
  if (staging.flush) for (const folder of made) await syncFolder(join(staging.child, folder));
}

/** Puts a file into the child in one step, over one that another process put there: they do no harm to each other. */
export async function stageFile({ dir, child, flush }: Staging, name: string, content: string | (() => Readable)): Promise<void> {
  // Outside of the child: what a writer leaves that is killed is not published.
  const temporary = join(dir, `.${basename(name)}.${randomUUID()}`);
  const file = await open(temporary, "wx");
  try {
    await writeFile(file, typeof content === "string" ? content : content());
    if (flush) await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, join(child, name));
}

/** Gives the finished child its name in one step. Throws TARGET_EXISTS where something took the name meanwhile. */
export async function publish({ target, child, flush }: Staging): Promise<void> {
  if (flush) await syncFolder(child);
  await rename(child, target).catch((cause: NodeJS.ErrnoException) => {
    if (!TAKEN.includes(cause.code ?? "")) throw cause;
    throw new PruneError("TARGET_EXISTS", `${target} was filled by someone else in the meantime`, { cause });
  });
}

/** After publishing: flushes the child's name to storage, and removes what is left of the job. */
export async function settleStaging({ target, dir, jobDir, outermost, flush }: Staging): Promise<void> {
  if (flush) await syncAbove(target, outermost);
  await discard(dir, jobDir);
}

/** Removes a job's folder, if it is there. */
export async function discard(dir: string, jobDir: string): Promise<void> {
  // Out of the way in one step: whoever looks for the job's folder finds all of it or nothing.
  const discarded = `${jobDir}.discarded-${randomUUID()}`;
  try {
    await rename(dir, discarded);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return; // what Node's file functions throw
    throw error;
  }
  await rm(discarded, { recursive: true, force: true });
}

/** Flushes the folder that has a name, and those above it that were made for it. */
async function syncAbove(path: string, outermost: string | undefined): Promise<void> {
  const folder = dirname(path);
  await syncFolder(folder);
  if (outermost !== undefined && path !== outermost) await syncAbove(folder, outermost);
}
