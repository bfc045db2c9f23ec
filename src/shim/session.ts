import { Metadata } from "@grpc/grpc-js";
import { PruneError } from "../errors.js";
import type { Succeeded } from "../gen/prunebridge/v1/operation.js";
import type { HandshakeResponse } from "../gen/prunebridge/v1/session.js";
import type { RunOptions } from "../progress.js";
import type { Tensor } from "../tensor.js";
import { DeathWatch } from "./deathWatch.js";
import type { FeedSource } from "./feed.js";
import { Operations, type Work } from "./operations.js";
import { PROTOCOL, TIMEOUTS, type Timeouts } from "./options.js";
import type { ShimProcess } from "./process.js";
import { callUnary, connect, disconnect, type Stubs, unconnected } from "./rpc.js";

const META = new Metadata();

/** What a shim is and can do: version, capabilities, devices, limits. */
export type ShimInfo = HandshakeResponse;

/** The parts of a process that a session needs: the news of its death, and which Python functions it may call. */
export type Lifeline = Pick<ShimProcess, "died" | "allowPython">;

interface Connection {
  readonly stubs: Stubs;
  readonly deathWatch: DeathWatch;
  readonly operations: Operations;
}

/** A connection to one shim, after its handshake. */
export class ShimSession {
  readonly #stubs: Stubs;
  readonly #deathWatch: DeathWatch;
  readonly #operations: Operations;
  readonly shim: HandshakeResponse;
  /** The Python functions and modules that the shim may call. */
  readonly allowPython: readonly string[];

  private constructor({ stubs, deathWatch, operations }: Connection, shim: HandshakeResponse, allowPython: readonly string[]) {
    this.#stubs = stubs;
    this.#deathWatch = deathWatch;
    this.#operations = operations;
    this.shim = shim;
    this.allowPython = allowPython;
  }

  /** Connects and shakes hands. Throws PROTOCOL_MISMATCH, SHIM_UNREACHABLE, SHIM_STALLED or SHIM_DIED. */
  static async open(address: string, client: string, lifeline: Lifeline, limits: Partial<Timeouts> = {}): Promise<ShimSession> {
    const timeouts = { ...TIMEOUTS, ...limits };
    const stubs = connect(address, timeouts);
    const deathWatch = new DeathWatch(lifeline.died, timeouts.exitNews);
    const connection = { stubs, deathWatch, operations: new Operations(stubs, timeouts) };
    const request = { protocolMin: PROTOCOL.min, protocolMax: PROTOCOL.max, client };
    const handshake = (): Promise<HandshakeResponse> => {
      const answer = callUnary<HandshakeResponse>(
        (options, done) => stubs.session.handshake(request, META, options, done),
        timeouts.handshake,
      );
      return Promise.race([answer, unconnected(stubs, timeouts.connect)]);
    };
    try {
      return new ShimSession(connection, await deathWatch.guard(handshake), lifeline.allowPython);
    } catch (error) {
      disconnect(stubs);
      throw error;
    }
  }

  /** Ends the connection and whatever waits for it, by SHIM_SHUTTING_DOWN; what runs in the shim without a feed goes on. */
  close(): void {
    this.#deathWatch.end(new PruneError("SHIM_SHUTTING_DOWN", "the connection to the shim was closed", { hint: "open another one" }));
    disconnect(this.#stubs);
  }

  /**
   * Runs one operation to its end, feeding it where it reads batches. A watch that breaks off is taken up again where it was.
   *
   * @throws PruneError BAD_OPTION at once where it would wait for a feed that waits for it; as the operation failed; CANCELLED where the signal
   *   ended it; FEED_LOST where the connection broke while it was fed; SHIM_STALLED; SHIM_DIED with the tail of the log
   */
  async run(work: Work, options: RunOptions = {}, feed?: FeedSource): Promise<Succeeded> {
    return (await this.#deathWatch.guard((abandoned) => this.#operations.run({ work, feed, abandoned }, options))).done;
  }

  /** Runs one operation and fetches the tensors that it leaves. */
  async runForTensors(
    work: Work,
    options: RunOptions = {},
    feed?: FeedSource,
  ): Promise<{ done: Succeeded; tensors: ReadonlyMap<string, Tensor> }> {
    return this.#deathWatch.guard(async (abandoned) => {
      const { operationId, done } = await this.#operations.run({ work, feed, abandoned }, options);
      return { done, tensors: await this.#operations.readResult(operationId, abandoned) };
    });
  }
}
