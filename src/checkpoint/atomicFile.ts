import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { PruneError } from "../errors.js";
import { hashOf } from "../hash.js";

// Hidden, and with the writer's machine and process id: what a writer leaves that was killed can be told from what another one, of a machine
// with the same storage, is writing.
export const MACHINE = hashOf(hostname()).slice(0, 8);
const TEMPORARY = new RegExp(String.raw`^\..+\.${MACHINE}-(\d+)-[0-9a-f]{8}$`);
const FULL = ["ENOSPC", "EDQUOT", "EFBIG"];

/**
 * Writes a file so that its name only ever shows whole content: to a neighbour first, flushed, then renamed. Makes its folder.
 *
 * @throws PruneError STORAGE_FULL or STORAGE_FAILED; then the file is as it was
 */
export async function writeFileAtomically(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${MACHINE}-${process.pid}-${randomBytes(4).toString("hex")}`);
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFlushed(temporary, content);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {}); // what could not be written cannot always be removed
    throw storageError(path, error);
  }
}

/** Names what storage refused: STORAGE_FULL or STORAGE_FAILED. */
export function storageError(path: string, cause: unknown): PruneError {
  const { code = "", message } = cause as NodeJS.ErrnoException; // what Node's file functions throw
  if (!FULL.includes(code)) return new PruneError("STORAGE_FAILED", `cannot write ${path}: ${message}`, { cause });
  return new PruneError("STORAGE_FULL", `there is no room for ${path}: ${message}`, {
    hint: "free some, and run the same again: what is stored is used",
    cause,
  });
}

/** Removes what writers that were killed left in a folder. */
export async function removeLeftovers(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []); // a folder that is not there holds nothing
  const left = names.filter((name) => {
    const [, writer] = TEMPORARY.exec(name) ?? [];
    return writer !== undefined && !isAlive(Number(writer));
  });
  await Promise.all(left.map((name) => rm(join(folder, name), { force: true })));
}

/** Whether a process of this machine runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // another user's
  }
}

/** Writes a new file and flushes it to storage. Fails where the file exists. */
export async function writeFlushed(path: string, content: string | Uint8Array): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Flushes a folder's entries to storage. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
