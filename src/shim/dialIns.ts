import { createServer, type Server, type Socket } from "node:net";
import { type SecureContext, TLSSocket } from "node:tls";
import { onAbort } from "../cancel.js";
import { PruneError } from "../errors.js";
import { refusalOf, refuse, welcome } from "./dialLine.js";
import type { Token } from "./token.js";

/** Connections at a time that have not said who they are; with one more, the oldest of them goes. */
const MOST_STRANGERS = 64;
/** Connections at a time that wait to be taken; a job has one. With one more, the oldest of them goes. */
const MOST_WAITING = 8;
const PROBE_MS = 30_000;

/** Who is let in, and how. */
export interface Doorkeeping {
  readonly token: Token;
  /** For TLS. */
  readonly secure: SecureContext | undefined;
  /** How long a connection may take to say who it is, and to speak once it is answered, in milliseconds. */
  readonly patience: number;
}

/** Connections that jobs have made to this process. */
export class DialIns {
  readonly #server: Server;
  readonly #doorkeeping: Doorkeeping;
  readonly #strangers = new Set<Socket>();
  readonly #waiting = new Set<Socket>();
  /** Of those who wait for a connection. */
  readonly #bells = new Set<() => void>();

  private constructor(server: Server, doorkeeping: Doorkeeping) {
    this.#server = server;
    this.#doorkeeping = doorkeeping;
    server.on("connection", (socket) => void this.#receive(socket));
  }

  /** Listens on a TCP port, 0 for any that is free. Throws BAD_OPTION where it cannot. */
  static async listen(host: string, port: number, doorkeeping: Doorkeeping): Promise<DialIns> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause: NodeJS.ErrnoException) => {
        const detail = `cannot listen on port ${port} of ${host}: ${cause.code}`;
        reject(new PruneError("BAD_OPTION", detail, { hint: "give an address of this machine and a port that is free", cause }));
      });
      server.listen(port, host, resolve);
    });
    server.on("error", () => {});
    return new DialIns(server, doorkeeping);
  }

  /** The port that it listens on. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /**
   * Takes the latest connection that waits, or the next one, and answers it. A job has one at a time: it has left those that wait since before,
   * even where their end was never heard. One that is answered and stays silent is closed.
   *
   * @returns undefined where the signal fires first
   */
  async take(signal: AbortSignal): Promise<Socket | undefined> {
    for (; !signal.aborted; await this.arrival(signal)) {
      const socket = [...this.#waiting].at(-1);
      if (!socket) continue;
      this.#waiting.delete(socket);
      for (const older of this.#waiting) older.destroy();
      // Whoever takes it is to miss nothing.
      socket.removeAllListeners("data").pause();
      welcome(socket);
      closeIfSilent(socket, this.#doorkeeping.patience);
      return socket;
    }
    return undefined;
  }

  /** Waits until there is a connection to take, or the signal fires. */
  async arrival(signal: AbortSignal): Promise<void> {
    while (this.#waiting.size === 0 && !signal.aborted) await this.#bell(signal);
  }

  /** Listens no more, and hangs up on whoever was not taken. */
  close(): void {
    this.#server.close();
    for (const socket of [...this.#strangers, ...this.#waiting]) socket.destroy();
  }

  #bell(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const ring = (): void => {
        this.#bells.delete(ring);
        undo();
        resolve();
      };
      this.#bells.add(ring);
      const undo = onAbort(signal, () => setImmediate(ring));
    });
  }

  async #receive(raw: Socket): Promise<void> {
    const { token, secure, patience } = this.#doorkeeping;
    const socket = secure ? new TLSSocket(raw, { isServer: true, secureContext: secure }) : raw;
    // What goes wrong with a connection closes it, and that is heard.
    for (const each of [raw, socket]) each.on("error", () => socket.destroy());
    raw.setNoDelay(true).setKeepAlive(true, PROBE_MS);
    enter(this.#strangers, socket, MOST_STRANGERS);
    const refusal = await refusalOf(socket, token, patience);
    this.#strangers.delete(socket);
    if (refusal === undefined) this.#admit(socket);
    else refuse(socket, refusal);
  }

  #admit(socket: Socket): void {
    enter(this.#waiting, socket, MOST_WAITING);
    // Read on, so that its end is heard; and what speaks out of turn is none of ours.
    socket.on("data", () => socket.destroy());
    for (const ring of this.#bells) ring();
  }
}

/** A server of gRPC speaks first thing. */
function closeIfSilent(socket: Socket, patience: number): void {
  const timer = setTimeout(() => socket.destroy(), patience);
  const heard = (): void => clearTimeout(timer);
  socket.once("data", heard).once("close", heard);
}

/** Adds a connection for as long as it lasts; the oldest one goes where there are too many. */
function enter(held: Set<Socket>, socket: Socket, most: number): void {
  const [oldest] = held;
  if (held.size >= most) oldest?.destroy();
  held.add(socket);
  socket.once("close", () => held.delete(socket));
}
