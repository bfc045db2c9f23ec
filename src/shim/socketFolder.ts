import { lstat, mkdtemp, readdir, rmdir, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TIMEOUTS } from "./options.js";

/** The name of a shim's socket in its folder. */
export const SOCKET = "shim.sock";

/** The name of the file with its token, which is there until the shim has read it. */
export const TOKEN_FILE = "token";

const DAY_MS = 24 * 3_600_000;

const FOLDER = /^prunebridge-\d+-\w{6}$/;

/** Makes a private folder for a shim's socket, and removes those that shims left whose parents were killed: nobody else can. */
export async function makeSocketFolder(): Promise<string> {
  const names = await readdir(tmpdir());
  const folders = names.filter((name) => FOLDER.test(name)).map((name) => join(tmpdir(), name));
  // One that cannot be removed, or was removed by another process, is nobody's trouble.
  await Promise.all(folders.map((folder) => removeIfDead(folder).catch(() => {})));
  return mkdtemp(join(tmpdir(), `prunebridge-${process.pid}-`)); // mode 0700
}

/** Removes a folder of this user's that holds nothing but a socket that nobody listens on, and a token that nobody has read. */
async function removeIfDead(folder: string): Promise<void> {
  const found = await lstat(folder);
  if (!found.isDirectory() || found.uid !== process.getuid?.()) return;
  const entries = await readdir(folder);
  const socket = entries.includes(SOCKET) ? join(folder, SOCKET) : undefined;
  // A shim that is starting does not listen yet, and nobody knows how long its parent waits.
  if (Date.now() - found.mtimeMs < (socket === undefined ? DAY_MS : TIMEOUTS.spawn)) return;
  if (entries.some((name) => name !== SOCKET && name !== TOKEN_FILE)) return;
  if (socket !== undefined && !((await lstat(socket)).isSocket() && (await refuses(socket)))) return;
  for (const name of entries) await unlink(join(folder, name));
  await rmdir(folder);
}

/** Whether nobody listens on a socket. A process id would not tell: containers can share a folder and not their processes. */
function refuses(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket);
    probe.once("connect", () => {
      probe.destroy();
      resolve(false);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
}
