import { PruneError } from "../errors.js";
import type { Succeeded } from "../gen/prunebridge/v1/operation.js";
import type { HandshakeResponse } from "../gen/prunebridge/v1/session.js";
import type { RunOptions } from "../progress.js";
import type { Tensor } from "../tensor.js";
import { DeathWatch } from "./deathWatch.js";
import type { Endpoint } from "./endpoint.js";
import type { FeedSource } from "./feed.js";
import { connected, shakeHands } from "./handshake.js";
import { Operations, type Work } from "./operations.js";
import { TIMEOUTS, type Timeouts } from "./options.js";
import type { ShimProcess } from "./process.js";
import { RestartWatch } from "./restartWatch.js";
import { disconnect, type Stubs } from "./rpc.js";

/** What a shim is and can do: version, capabilities, devices, limits. */
export type ShimInfo = HandshakeResponse;

/** The parts of a process that a session needs: the news of its death, and which Python functions it may call. */
export type Lifeline = Pick<ShimProcess, "died" | "allowPython">;

/** What explains failures by what became of the shim. */
type Watch = Pick<DeathWatch | RestartWatch, "guard" | "end" | "gone">;

interface Connection {
  readonly stubs: Stubs;
  readonly watch: Watch;
  readonly operations: Operations;
  readonly ask: () => Promise<HandshakeResponse>;
}

/** A connection to one shim, after its handshake. */
export class ShimSession {
  readonly #stubs: Stubs;
  readonly #watch: Watch;
  readonly #operations: Operations;
  readonly #ask: () => Promise<HandshakeResponse>;
  /** What the shim was when it was connected to. */
  readonly shim: HandshakeResponse;
  /** The Python functions and modules that the shim may call, where it was started from here. */
  readonly allowPython: readonly string[] | undefined;

  private constructor({ stubs, watch, operations, ask }: Connection, shim: HandshakeResponse, allowPython?: readonly string[]) {
    this.#stubs = stubs;
    this.#watch = watch;
    this.#operations = operations;
    this.#ask = ask;
    this.shim = shim;
    this.allowPython = allowPython;
  }

  /** Connects to a shim that was started from here and shakes hands. Throws PROTOCOL_MISMATCH, SHIM_UNREACHABLE, SHIM_STALLED or SHIM_DIED. */
  static async open(endpoint: Endpoint, client: string, lifeline: Lifeline, limits: Partial<Timeouts> = {}): Promise<ShimSession> {
    const timeouts = { ...TIMEOUTS, ...limits };
    const watch = new DeathWatch(lifeline.died, timeouts.exitNews);
    return connected(endpoint, timeouts, async (stubs) => {
      const ask = () => shakeHands(stubs, client, timeouts);
      const shim = await watch.guard(ask);
      return new ShimSession({ stubs, watch, operations: new Operations(stubs, timeouts), ask }, shim, lifeline.allowPython);
    });
  }

  /** Connects to a shim that others use too, and shakes hands. Throws UNAUTHENTICATED, PROTOCOL_MISMATCH, SHIM_UNREACHABLE or SHIM_STALLED. */
  static async attach(endpoint: Endpoint, client: string, limits: Partial<Timeouts> = {}): Promise<ShimSession> {
    // It has imported torch before it listened.
    const timeouts = { ...TIMEOUTS, handshake: 2 * TIMEOUTS.unary, ...limits };
    return connected(endpoint, timeouts, async (stubs) => {
      const ask = () => shakeHands(stubs, client, timeouts);
      const shim = await ask();
      const again = { ...timeouts, handshake: timeouts.restartNews };
      const watch = new RestartWatch(shim.bootId, async () => (await shakeHands(stubs, client, again)).bootId);
      return new ShimSession({ stubs, watch, operations: new Operations(stubs, timeouts), ask }, shim);
    });
  }

  /** What the shim is by now: a job has passed more steps. Throws as {@link ShimSession.attach} does, or SHIM_DIED. */
  shimNow(): Promise<HandshakeResponse> {
    return this.#watch.guard(() => this.#ask());
  }

  /** Whether an error says that the shim holds nothing of this session any more. */
  isGone(error: unknown): boolean {
    return error instanceof PruneError && this.#watch.gone.includes(error.code);
  }

  /** Ends the connection and whatever waits for it, by SHIM_SHUTTING_DOWN; what runs in the shim without a feed goes on. */
  close(): void {
    this.#watch.end(new PruneError("SHIM_SHUTTING_DOWN", "the connection to the shim was closed", { hint: "open another one" }));
    disconnect(this.#stubs);
  }

  /**
   * Cancels what runs in the shim, has it close the models that were opened here, and ends the connection. A shim that is at other work
   * closes them after it, which is not waited for.
   *
   * @throws PruneError what kept models from being closed
   */
  async detach(): Promise<void> {
    try {
      await this.#watch.guard((abandoned) => this.#operations.release(abandoned));
    } catch (error) {
      if (!this.isGone(error)) throw error;
    } finally {
      this.close();
    }
  }

  /**
   * Runs one operation to its end, feeding it where it reads batches. A watch that breaks off is taken up again where it was.
   *
   * @throws PruneError BAD_OPTION at once where it would wait for a feed that waits for it; as the operation failed; CANCELLED where the signal
   *   ended it; FEED_LOST where the connection broke while it was fed; SHIM_STALLED; SHIM_DIED with the tail of the log
   */
  async run(work: Work, options: RunOptions = {}, feed?: FeedSource): Promise<Succeeded> {
    return (await this.#watch.guard((abandoned) => this.#operations.run({ work, feed, abandoned }, options))).done;
  }

  /** Runs one operation and fetches the tensors that it leaves. */
  async runForTensors(
    work: Work,
    options: RunOptions = {},
    feed?: FeedSource,
  ): Promise<{ done: Succeeded; tensors: ReadonlyMap<string, Tensor> }> {
    return this.#watch.guard(async (abandoned) => {
      const { operationId, done } = await this.#operations.run({ work, feed, abandoned }, options);
      return { done, tensors: await this.#operations.readResult(operationId, abandoned) };
    });
  }
}
