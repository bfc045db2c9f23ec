import { rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { onAbort } from "../cancel.js";
import type { DialIns } from "./dialIns.js";
import { makeSocketFolder, SOCKET } from "./socketFolder.js";

/** A private socket of this process: each connection to it is carried on by one that a job has made. */
export class Relay {
  readonly path: string;
  readonly #server: Server;
  readonly #dialIns: DialIns;
  readonly #ending = new AbortController();
  #givenUp = new AbortController();

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
    // A client has one connection at a time: with a new one, it has given up the one that still waits.
    this.#givenUp.abort();
    this.#givenUp = new AbortController();
    const theirs = await this.#dialIns.take(AbortSignal.any([this.#givenUp.signal, this.#ending.signal]));
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
