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
import { type FeedSource, sendFeed } from "./feed.js";
import { PROTOCOL, RETRY_PAUSES, TIMEOUTS } from "./options.js";
import type { ShimProcess } from "./process.js";
import { callUnary, connect, disconnect, readStream, type Stubs } from "./rpc.js";
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

/** A connection to one shim, after its handshake. */
export class ShimSession {
  readonly #stubs: Stubs;
  readonly #deathWatch: DeathWatch;
  readonly shim: HandshakeResponse;
  /** The Python functions and modules that the shim may call. */
  readonly allowPython: readonly string[];

  private constructor(stubs: Stubs, deathWatch: DeathWatch, shim: HandshakeResponse, allowPython: readonly string[]) {
    this.#stubs = stubs;
    this.#deathWatch = deathWatch;
    this.shim = shim;
    this.allowPython = allowPython;
  }

  /** Connects and shakes hands. Throws PROTOCOL_MISMATCH, SHIM_UNREACHABLE or SHIM_DIED. */
  static async open(address: string, client: string, lifeline: Lifeline): Promise<ShimSession> {
    const stubs = connect(address);
    const deathWatch = new DeathWatch(lifeline.died);
    const request = { protocolMin: PROTOCOL.min, protocolMax: PROTOCOL.max, client };
    try {
      const answer = callUnary<HandshakeResponse>(
        (options, done) => stubs.session.handshake(request, META, options, done),
        TIMEOUTS.handshake,
      );
      return new ShimSession(stubs, deathWatch, await deathWatch.guard(answer), lifeline.allowPython);
    } catch (error) {
      disconnect(stubs);
      throw error;
    }
  }

  /** Ends the connection; what runs in the shim goes on. */
  close(): void {
    disconnect(this.#stubs);
  }

  /**
   * Runs one operation to its end, feeding it where it reads batches. A watch that breaks off is taken up again where it was.
   *
   * @throws PruneError BAD_OPTION at once where it would wait for a feed that waits for it; as the operation failed; CANCELLED where the signal ended it; SHIM_DIED with the tail of the log
   */
  async run(work: Work, options: RunOptions = {}, feed?: FeedSource): Promise<Succeeded> {
    return (await this.#deathWatch.guard(this.#runToEnd(work, options, feed))).done;
  }

  /** Runs one operation and fetches the tensors that it leaves. */
  async runForTensors(
    work: Work,
    options: RunOptions = {},
    feed?: FeedSource,
  ): Promise<{ done: Succeeded; tensors: ReadonlyMap<string, Tensor> }> {
    const { operationId, done } = await this.#deathWatch.guard(this.#runToEnd(work, options, feed));
    return { done, tensors: await this.#deathWatch.guard(this.#readResult(operationId)) };
  }

  async #runToEnd(work: Work, { signal, onProgress }: RunOptions, feed?: FeedSource): Promise<{ operationId: string; done: Succeeded }> {
    throwIfCancelled(signal);
    if (!BESIDE_MODELS.includes(work.$case)) Drawing.refuse(this);
    const request: StartRequest = { requestId: randomUUID(), work };
    const { operationId } = await callUnary<{ operationId: string }>((o, done) => this.#stubs.operations.start(request, META, o, done));
    const cancel = (): void => void this.#cancel(operationId).catch(() => {});
    signal?.addEventListener("abort", cancel, { once: true });
    if (signal?.aborted) cancel();
    const feeding = feed ? settle(sendFeed(this.#stubs.feeds, feed, new Drawing(this))) : undefined;
    // The caller's own iterator failing is the cause of what the operation then reports.
    void feeding?.then(({ error }) => error !== undefined && cancel());
    try {
      const done = await this.#watch(operationId, onProgress && feed ? withTotal(onProgress, () => feed.asks.size) : onProgress);
      await feeding;
      return { operationId, done };
    } catch (error) {
      // Where the feed failed first, that is the cause; a loader that is still thinking is not waited for.
      const fed = await Promise.race([feeding, undefined]);
      throw fed?.error !== undefined && !isFeedLost(fed.error) && !signal?.aborted ? fed.error : error;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  async #watch(operationId: string, onProgress: RunOptions["onProgress"]): Promise<Succeeded> {
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
