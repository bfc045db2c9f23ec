import { constants } from "node:fs";
import { access, copyFile, mkdir, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PruneError } from "../errors.js";
import { syncFolder, writeFlushed } from "./atomicFile.js";

/** A child's folder while it is being written: beside its target, under a name that no loader looks for. */
export interface Staging {
  readonly target: string;
  readonly dir: string;
  /** The outermost folder that had to be made for it: the staging folder itself, where the target's own folder was there. */
  readonly outermost: string;
}

// Everything that has to do with weights is written anew; the rest belongs to the child as it is.
const NOT_CARRIED = /(\.safetensors|\.safetensors\.index\.json|\.bin|\.bin\.index\.json|\.pt|\.pth|\.ckpt|\.gguf|\.h5|\.msgpack)$/;

/**
 * Refuses a target that holds something, is the parent itself or cannot be written, before any work is done.
 *
 * @throws PruneError TARGET_EXISTS or PATH_DENIED
 */
export async function checkTarget(target: string, parent: string): Promise<void> {
  const absolute = resolve(target);
  const [there, source] = await Promise.all([stat(absolute).catch(() => undefined), stat(parent)]);
  if (!there) return checkWritable(absolute);
  // Links and mounts make one folder of two names.
  if (there.dev === source.dev && there.ino === source.ino) {
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

/** Makes an empty staging folder beside the target; what a run that was killed left in it is removed. */
export async function openStaging(target: string): Promise<Staging> {
  const absolute = resolve(target);
  const dir = join(dirname(absolute), `.${basename(absolute)}.prunebridge-partial`);
  try {
    await rm(dir, { recursive: true, force: true });
    const outermost = (await mkdir(dir, { recursive: true })) ?? dir;
    return { target: absolute, dir, outermost };
  } catch (cause) {
    throw new PruneError("STORAGE_FAILED", `cannot write beside ${absolute}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
}

/** Removes a staging folder with all that is in it, and the empty folders that were made for it. */
export async function discardStaging({ dir, outermost }: Staging): Promise<void> {
  await rm(dir, { recursive: true, force: true });
  for (let folder = dir; folder !== outermost; ) {
    folder = dirname(folder);
    // Someone else may have put something there meanwhile: then it stays.
    await rmdir(folder).catch(() => {});
  }
}

/** Copies tokenizer, generation config, licence and remote code: every file and folder of the parent that holds no weights. */
export async function carrySideFiles(parent: string, staging: Staging, replaced: readonly string[]): Promise<string[]> {
  const carried: string[] = [];
  const copy = async (within: string): Promise<void> => {
    for (const entry of await readdir(join(parent, within), { withFileTypes: true })) {
      const name = join(within, entry.name);
      if (entry.name.startsWith(".") || NOT_CARRIED.test(entry.name) || replaced.includes(name)) continue;
      const kind = await stat(join(parent, name));
      if (kind.isDirectory()) {
        await mkdir(join(staging.dir, name), { recursive: true });
        await copy(name);
      } else if (kind.isFile()) {
        await copyFile(join(parent, name), join(staging.dir, name), constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
        carried.push(name);
      }
    }
  };
  await copy("");
  return carried;
}

/** Writes a document into the staging folder, flushed. */
export async function stageDocument(staging: Staging, name: string, content: string): Promise<void> {
  await writeFlushed(join(staging.dir, name), content);
}

/** Gives the finished folder its name in one step. Throws TARGET_EXISTS where something took the name meanwhile. */
export async function publish(staging: Staging): Promise<void> {
  await syncFolder(staging.dir);
  await rmdir(staging.target).catch(() => undefined);
  const taken = await access(staging.target).then(
    () => true,
    () => false,
  );
  if (taken) throw new PruneError("TARGET_EXISTS", `${staging.target} was filled by someone else in the meantime`);
  await rename(staging.dir, staging.target);
  await syncFolder(dirname(staging.target));
}
