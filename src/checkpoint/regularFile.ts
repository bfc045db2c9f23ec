import { constants, type Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { type ErrorCode, PruneError } from "../errors.js";

/** What a file read as a whole is, and how much of it there may be. */
export interface TextKind {
  /** The code of errors about its content. */
  readonly code: ErrorCode;
  /** Bytes that it may have at most. */
  readonly mostBytes: number;
}

/**
 * Opens a regular file for reading, and nothing else: a FIFO would wait for its writer, and a device may never end.
 *
 * @throws PruneError PATH_NOT_FOUND that says why it cannot be read
 */
export async function openRegularFile(path: string): Promise<FileHandle> {
  const fail = (cause: unknown): never => {
    throw unreadable(path, cause);
  };
  checkRegular(path, await stat(path).catch(fail));
  // What has taken the file's place since must not block either.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(fail);
  try {
    checkRegular(path, await file.stat());
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Reads a regular file of UTF-8 text.
 *
 * @throws PruneError PATH_NOT_FOUND, or the kind's own code where the file is too large or no UTF-8
 */
export async function readText(path: string, kind: TextKind): Promise<string> {
  const bytes = await readBounded(path, kind);
  try {
    // A byte order mark stays: what is read is hashed and written again as it was.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new PruneError(kind.code, `${path} is not UTF-8 text`, { hint: "save it as UTF-8", cause });
  }
}

async function readBounded(path: string, { code, mostBytes }: TextKind): Promise<Buffer> {
  const file = await openRegularFile(path);
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    const { size } = await file.stat();
    if (size > mostBytes) throw tooLarge(path, code, mostBytes);
    // Files in /proc state no size, whatever they hold.
    for await (const chunk of file.createReadStream({ end: mostBytes, autoClose: false }) as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
    }
  } catch (error) {
    throw error instanceof PruneError ? error : unreadable(path, error);
  } finally {
    await file.close();
  }
  if (bytes > mostBytes) throw tooLarge(path, code, mostBytes);
  return Buffer.concat(chunks);
}

function tooLarge(path: string, code: ErrorCode, mostBytes: number): PruneError {
  return new PruneError(code, `${path} has more than ${mostBytes} bytes`, { hint: "name the right file" });
}

function unreadable(path: string, cause: unknown): PruneError {
  return new PruneError("PATH_NOT_FOUND", `cannot read ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}

function checkRegular(path: string, found: Stats): void {
  if (found.isFile()) return;
  throw new PruneError("PATH_NOT_FOUND", `cannot read ${path}: it is ${kindOf(found)}, not a file`, {
    hint: "name a regular file, or a link to one",
  });
}

function kindOf(found: Stats): string {
  if (found.isDirectory()) return "a folder";
  if (found.isFIFO()) return "a FIFO";
  return found.isSocket() ? "a socket" : "a device";
}
