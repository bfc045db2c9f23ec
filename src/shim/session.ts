import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Metadata } from "@grpc/grpc-js";
import { throwIfCancelled } from "../cancel.js";
import { PruneError } from "../errors.js";
import type { StartRequest, Succeeded, WatchResponse } from "../gen/prunebridge/v1/operation.js";
import type { HandshakeResponse } from "../gen/prunebridge/v1/session.js";
import type { RunOptions } from "../progress.js";
import { withTotal } from "../progress.js";
import type { Tensor } from "../tensor.js";
import { DeathWatch } from "./deathWatch.js";
import { Drawing } from "./drawing.js";
import type { Endpoint } from "./endpoint.js";
import { type FeedSource, sendFeed } from "./feed.js";
import { connected, shakeHands } from "./handshake.js";
import { Holdings } from "./holdings.js";
import { RETRY_PAUSES, TIMEOUTS } from "./options.js";
import type { ShimProcess } from "./process.js";
import { RestartWatch } from "./restartWatch.js";
import { callUnary, disconnect, readStream, type Stubs } from "./rpc.js";
import { TensorAssembler } from "./tensors.js";
import { fromCallError, fromDetail, isUnavailable } from "./translate.js";

const META = new Metadata();

/** Work that touches no model, for which the shim has another thread. */
const BESIDE_MODELS: readonly Work["$case"][] = ["slice", "tokenize"];

type Work = NonNullable<StartRequest["work"]>;
type Event = NonNullable<WatchResponse["event"]>;

/** What a shim is and can do: version, capabilities, devices, limits. */
export type ShimInfo = HandshakeResponse;

/** The parts of a process that a session needs: the news of its death, and which Python functions it may call. */
export type Lifeline = Pick<ShimProcess, "died" | "allowPython">;

/** What explains failures by what became of the shim, and the codes of errors after which it holds nothing any more. */
type Watch = Pick<DeathWatch | RestartWatch, "guard" | "gone">;

/** A connection to one shim, after its handshake. */
export class ShimSession {
  readonly #stubs: Stubs;
  readonly #watch: Watch;
  readonly #holdings = new Holdings();
  #ended: PruneError | undefined;
  readonly shim: HandshakeResponse;
  /** The Python functions and modules that the shim may call, where its starter is this process. */
  readonly allowPython: readonly string[] | undefined;

  private constructor(stubs: Stubs, watch: Watch, shim: HandshakeResponse, allowPython?: readonly string[]) {
    this.#stubs = stubs;
    this.#watch = watch;
    this.shim = shim;
    this.allowPython = allowPython;
  }

  /** Connects to a shim of this process and shakes hands. Throws PROTOCOL_MISMATCH, SHIM_UNREACHABLE or SHIM_DIED. */
  static async open(endpoint: Endpoint, client: string, { died, allowPython }: Lifeline): Promise<ShimSession> {
    const watch = new DeathWatch(died);
    return connected(endpoint, async (stubs) => {
      const shim = await watch.guard(shakeHands(stubs, client, TIMEOUTS.handshake));
      return new ShimSession(stubs, watch, shim, allowPython);
    });
  }

  /** Connects to a shim that others use too, and shakes hands. Throws UNAUTHENTICATED, SHIM_UNREACHABLE or SHIM_STALLED. */
  static async attach(endpoint: Endpoint, client: string): Promise<ShimSession> {
    return connected(endpoint, async (stubs) => {
      const ask = (): Promise<HandshakeResponse> => shakeHands(stubs, client, TIMEOUTS.unary);
      const shim = await ask();
      return new ShimSession(stubs, new RestartWatch(shim.bootId, async () => (await ask()).bootId), shim);
    });
  }

  /** Whether an error says that the shim holds nothing of this session any more. */
  isGone(error: unknown): boolean {
    return error instanceof PruneError && (error === this.#ended || this.#watch.gone.includes(error.code));
  }

  /** Ends the connection; what runs in the shim goes on. */
  close(): void {
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
      await this.#holdings.cancelAll(TIMEOUTS.detach);
      const closing = this.#holdings.models.map(async (modelId) => this.#start({ $case: "closeModel", value: { modelId } }));
      const watches = (await this.#watch.guard(Promise.all(closing))).map((operationId) => this.#follow(operationId, undefined));
      await Promise.race([Promise.allSettled(watches), sleep(TIMEOUTS.detach, undefined, { ref: false })]);
    } catch (error) {
      if (!this.isGone(error)) throw error;
    } finally {
      this.#ended = new PruneError("SHIM_UNREACHABLE", "the bridge to the shim was closed", { hint: "attach again" });
      this.close();
    }
  }

  /**
   * Runs one operation to its end, feeding it where it reads batches. A watch that breaks off is taken up again where it was.
   *
   * @throws PruneError BAD_OPTION at once where it would wait for a feed that waits for it; as the operation failed; CANCELLED where the signal ended it; SHIM_DIED with the tail of the log
   */
  async run(work: Work, options: RunOptions = {}, feed?: FeedSource): Promise<Succeeded> {
    return (await this.#watch.guard(this.#runToEnd(work, options, feed))).done;
  }

  /** Runs one operation and fetches the tensors that it leaves. */
  async runForTensors(
    work: Work,
    options: RunOptions = {},
    feed?: FeedSource,
  ): Promise<{ done: Succeeded; tensors: ReadonlyMap<string, Tensor> }> {
    const { operationId, done } = await this.#watch.guard(this.#runToEnd(work, options, feed));
    return { done, tensors: await this.#watch.guard(this.#readResult(operationId)) };
  }

  async #runToEnd(work: Work, { signal, onProgress }: RunOptions, feed?: FeedSource): Promise<{ operationId: string; done: Succeeded }> {
    throwIfCancelled(signal);
    if (this.#ended) throw this.#ended;
    if (!BESIDE_MODELS.includes(work.$case)) Drawing.refuse(this);
    const operationId = await this.#start(work);
    const cancel = (): void => void this.#cancel(operationId).catch(() => {});
    const end = this.#holdings.begin(cancel);
    signal?.addEventListener("abort", cancel, { once: true });
    if (signal?.aborted) cancel();
    const feeding = feed ? settle(sendFeed(this.#stubs.feeds, feed, new Drawing(this))) : undefined;
    // The caller's own iterator failing is the cause of what the operation then reports.
    void feeding?.then(({ error }) => error !== undefined && cancel());
    try {
      const done = await this.#follow(operationId, onProgress && feed ? withTotal(onProgress, () => feed.asks.size) : onProgress);
      await feeding;
      this.#holdings.note(work, done);
      return { operationId, done };
    } catch (error) {
      // Where the feed failed first, that is the cause; a loader that is still thinking is not waited for.
      const fed = await Promise.race([feeding, undefined]);
      throw fed?.error !== undefined && !isFeedLost(fed.error) && !signal?.aborted ? fed.error : error;
    } finally {
      signal?.removeEventListener("abort", cancel);
      end();
    }
  }

  async #start(work: Work): Promise<string> {
    const request: StartRequest = { requestId: randomUUID(), work };
    const answer = await callUnary<{ operationId: string }>((o, done) => this.#stubs.operations.start(request, META, o, done));
    return answer.operationId;
  }

  async #follow(operationId: string, onProgress: RunOptions["onProgress"]): Promise<Succeeded> {
    let seen = 0;
    for (let attempt = 0; ; attempt++) {
      try {
        for await (const { seq, event } of readStream(this.#stubs.operations.watch({ operationId, afterSeq: seen }))) {
          attempt = 0;
          if (event === undefined || seq <= seen) continue;
          seen = seq;
          const done = settleEvent(event, onProgress);
          if (done) return done;
        }
        throw new PruneError("INTERNAL", `the watch of operation ${operationId} ended without its last event`);
      } catch (error) {
        const pause = RETRY_PAUSES[attempt];
        if (pause === undefined || !isUnavailable(error)) throw fromCallError(error);
        await sleep(pause);
      }
    }
  }

  async #cancel(operationId: string): Promise<void> {
    await callUnary((options, done) => this.#stubs.operations.cancel({ operationId }, META, options, done));
  }

  async #readResult(operationId: string): Promise<ReadonlyMap<string, Tensor>> {
    const assembler = new TensorAssembler();
    try {
      for await (const { chunk } of readStream(this.#stubs.operations.readResult({ operationId }))) assembler.add(chunk);
    } catch (error) {
      throw fromCallError(error);
    }
    return assembler.finish();
  }
}

function settleEvent(event: Event, onProgress: RunOptions["onProgress"]): Succeeded | undefined {
  switch (event.$case) {
    case "progress":
      onProgress?.({ ...event.value, etaSeconds: event.value.etaSeconds });
      return undefined;
    case "succeeded":
      return event.value;
    case "failed":
      throw fromDetail(event.value);
  }
}

async function settle<T>(promise: Promise<T>): Promise<{ value?: T; error?: unknown }> {
  return promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
}

function isFeedLost(error: unknown): boolean {
  return error instanceof PruneError && error.code === "FEED_LOST";
}
