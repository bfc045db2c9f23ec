import { rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { onAbort } from "../cancel.js";
import type { DialIns } from "./dialIns.js";
import { makeSocketFolder, SOCKET } from "./socketFolder.js";

/** What a client has at a time, for calls and for tensors: with another, it has given up the first of those that still wait. */
const CONNECTIONS = 2;

/** A private socket of this process: each connection to it is carried on by one that a job has made. */
export class Relay {
  readonly path: string;
  readonly #server: Server;
  readonly #dialIns: DialIns;
  readonly #ending = new AbortController();
  readonly #waiting: AbortController[] = [];

  private constructor(path: string, server: Server, dialIns: DialIns) {
    this.path = path;
    this.#server = server;
    this.#dialIns = dialIns;
    server.on("connection", (socket) => void this.#carry(socket));
  }

  /** Listens on a socket in a folder of its own. */
  static async open(dialIns: DialIns): Promise<Relay> {
    const path = join(await makeSocketFolder(), SOCKET);
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen(path, resolve);
    });
    return new Relay(path, server, dialIns);
  }

  /** Ends all that it carries. Safe to call twice. */
  async close(): Promise<void> {
    this.#ending.abort();
    this.#server.close();
    await rm(dirname(this.path), { recursive: true, force: true });
  }

  async #carry(ours: Socket): Promise<void> {
    ours.on("error", () => ours.destroy());
    const givenUp = new AbortController();
    if (this.#waiting.push(givenUp) > CONNECTIONS) this.#waiting.shift()?.abort();
    const theirs = await this.#dialIns.take(AbortSignal.any([givenUp.signal, this.#ending.signal]));
    const at = this.#waiting.indexOf(givenUp);
    if (at >= 0) this.#waiting.splice(at, 1);
    if (!theirs) ours.destroy();
    else splice(ours, theirs, this.#ending.signal);
  }
}

/** Carries bytes both ways until either side ends. */
function splice(ours: Socket, theirs: Socket, ending: AbortSignal): void {
  const undo = onAbort(ending, () => ours.destroy());
  ours.pipe(theirs).pipe(ours);
  ours.once("close", () => {
    undo();
    theirs.destroySoon();
  });
  theirs.once("close", () => ours.destroySoon());
}
