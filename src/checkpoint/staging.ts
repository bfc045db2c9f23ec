import { constants } from "node:fs";
import { access, copyFile, mkdir, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PruneError } from "../errors.js";
import { syncFolder, writeFlushed } from "./atomicFile.js";

/** A child's folder while it is being written: beside its target, under a name that no loader looks for. */
export interface Staging {
  readonly target: string;
  readonly dir: string;
}

// Everything that has to do with weights is written anew; the rest belongs to the child as it is.
const NOT_CARRIED = /(\.safetensors|\.safetensors\.index\.json|\.bin|\.bin\.index\.json|\.pt|\.pth|\.ckpt|\.gguf|\.h5|\.msgpack)$/;

/**
 * Refuses a target that holds something or is the parent itself, before any work is done.
 *
 * @throws PruneError TARGET_EXISTS
 */
export async function checkTarget(target: string, parent: string): Promise<void> {
  const absolute = resolve(target);
  const [there, source] = await Promise.all([stat(absolute).catch(() => undefined), stat(parent)]);
  if (!there) return;
  // Links and mounts make one folder of two names.
  if (there.dev === source.dev && there.ino === source.ino) {
    throw new PruneError("TARGET_EXISTS", `${absolute} is the parent checkpoint itself`, {
      hint: "name a new folder: the parent is never changed",
    });
  }
  if (!there.isDirectory()) throw new PruneError("TARGET_EXISTS", `${absolute} is a file`, { hint: "name a new folder" });
  if ((await readdir(absolute)).length > 0) {
    throw new PruneError("TARGET_EXISTS", `${absolute} exists and is not empty`, { hint: "name a new folder, or remove this one first" });
  }
}

/** Makes an empty staging folder beside the target; what a run that was killed left in it is removed. */
export async function openStaging(target: string): Promise<Staging> {
  const absolute = resolve(target);
  const dir = join(dirname(absolute), `.${basename(absolute)}.prunebridge-partial`);
  try {
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { recursive: true });
  } catch (cause) {
    throw new PruneError("STORAGE_FAILED", `cannot write beside ${absolute}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
  return { target: absolute, dir };
}

/** Removes a staging folder with all that is in it. */
export async function discardStaging(staging: Staging): Promise<void> {
  await rm(staging.dir, { recursive: true, force: true });
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
