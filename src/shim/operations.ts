import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Metadata } from "@grpc/grpc-js";
import { onAbort, throwIfCancelled } from "../cancel.js";
import { type ErrorCode, PruneError } from "../errors.js";
import type { StartRequest, Succeeded, WatchResponse } from "../gen/prunebridge/v1/operation.js";
import type { RunOptions } from "../progress.js";
import { withTotal } from "../progress.js";
import type { Tensor } from "../tensor.js";
import { Drawing } from "./drawing.js";
import { type FeedSource, sendFeed } from "./feed.js";
import { Holdings } from "./holdings.js";
import type { Timeouts } from "./options.js";
import { Retries } from "./retries.js";
import { callUnary, readStream, type Stubs } from "./rpc.js";
import { Silence } from "./silence.js";
import { TensorAssembler } from "./tensors.js";
import { fromDetail, isUnavailable } from "./translate.js";

const META = new Metadata();

/** Work that touches no model, for which the shim has another thread. */
const BESIDE_MODELS: readonly Work["$case"][] = ["slice", "tokenize"];

/** What an operation is started with. */
export type Work = NonNullable<StartRequest["work"]>;

type Event = NonNullable<WatchResponse["event"]>;

/** One operation. */
export interface Run {
  readonly work: Work;
  readonly feed: FeedSource | undefined;
  /** Fires when its outcome is no longer waited for. */
  readonly abandoned: AbortSignal;
}

/** Runs operations over a connection. */
export class Operations {
  readonly #stubs: Stubs;
  readonly #timeouts: Timeouts;
  readonly #holdings = new Holdings();

  constructor(stubs: Stubs, timeouts: Timeouts) {
    this.#stubs = stubs;
    this.#timeouts = timeouts;
  }

  /** Starts an operation, feeds it and watches it to its end. Throws as {@link ShimSession.run} does, but for the process's death. */
  async run({ work, feed, abandoned }: Run, { signal, onProgress }: RunOptions): Promise<{ operationId: string; done: Succeeded }> {
    throwIfCancelled(signal);
    if (!BESIDE_MODELS.includes(work.$case)) Drawing.refuse(this);
    const operationId = await this.#start(work);
    const cancel = (): void => void this.#cancel(operationId).catch(() => {});
    const undo = signal && onAbort(signal, cancel);
    const end = this.#holdings.begin(cancel);
    const feeding = feed ? settle(sendFeed(this.#stubs.feeds, feed, new Drawing(this), abandoned)) : undefined;
    // The caller's own iterator failing is the cause of what the operation then reports.
    void feeding?.then(({ error }) => error !== undefined && cancel());
    try {
      const report = onProgress && feed ? withTotal(onProgress, () => feed.asks.size) : onProgress;
      const done = await this.#watch(operationId, report, abandoned);
      const { error } = (await feeding) ?? {};
      // Some of what it gave back may be lost.
      if (error !== undefined) throw error;
      this.#holdings.note(work, done);
      return { operationId, done };
    } catch (error) {
      // Where it is not the operation that failed, it must not go on with nobody waiting for it.
      cancel();
      // A loader that is still thinking is not waited for.
      const fed = await Promise.race([feeding, undefined]);
      throw signal?.aborted ? error : causeOf(error, fed?.error);
    } finally {
      undo?.();
      end();
    }
  }

  /** Cancels what runs, and closes the models that were opened. A shim that is at other work is not waited for. */
  async release(abandoned: AbortSignal): Promise<void> {
    await this.#holdings.cancelAll(this.#timeouts.detach);
    const closing = this.#holdings.models.map((modelId) => this.#start({ $case: "closeModel", value: { modelId } }));
    const ends = (await Promise.all(closing)).map((operationId) => this.#watch(operationId, undefined, abandoned));
    await Promise.race([Promise.allSettled(ends), sleep(this.#timeouts.detach, undefined, { ref: false })]);
  }

  /** Fetches the tensors that an operation left. */
  async readResult(operationId: string, abandoned: AbortSignal): Promise<ReadonlyMap<string, Tensor>> {
    for (const retries = new Retries(); ; ) {
      const assembler = new TensorAssembler();
      try {
        const stream = this.#stubs.operations.readResult({ operationId });
        for await (const { chunk } of readStream(stream, new Silence(this.#timeouts.stall), abandoned)) assembler.add(chunk);
        return assembler.finish();
      } catch (error) {
        await retries.pause(error);
      }
    }
  }

  async #start(work: Work): Promise<string> {
    const request: StartRequest = { requestId: randomUUID(), work };
    const { operationId } = await callUnary<{ operationId: string }>(
      (options, done) => this.#stubs.operations.start(request, META, options, done),
      this.#timeouts.unary,
    );
    return operationId;
  }

  async #watch(operationId: string, onProgress: RunOptions["onProgress"], abandoned: AbortSignal): Promise<Succeeded> {
    const [silence, retries] = [new Silence(this.#timeouts.stall), new Retries()];
    for (let seen = 0; ; ) {
      try {
        const stream = this.#stubs.operations.watch({ operationId, afterSeq: seen });
        for await (const { seq, event } of readStream(stream, silence, abandoned)) {
          retries.reset();
          if (event === undefined || seq <= seen) continue;
          seen = seq;
          const done = settleEvent(event, onProgress);
          if (done) return done;
        }
        throw new PruneError("INTERNAL", `the watch of operation ${operationId} ended without its last event`);
      } catch (error) {
        await retries.pause(error);
      }
    }
  }

  async #cancel(operationId: string): Promise<void> {
    await callUnary((options, done) => this.#stubs.operations.cancel({ operationId }, META, options, done), this.#timeouts.unary);
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

/** Of an operation's failure and its feed's, the one that led to the other. */
function causeOf(failure: unknown, fed: unknown): unknown {
  if (fed === undefined) return failure;
  if (!hasCode(fed, "FEED_LOST")) return fed;
  // That the operation has ended is no cause; that the connection broke is one, of the shim's word of it and of our own cancel.
  const broke = isUnavailable(fed.cause) && (hasCode(failure, "FEED_LOST") || hasCode(failure, "CANCELLED"));
  return broke ? fed : failure;
}

function hasCode(error: unknown, code: ErrorCode): error is PruneError {
  return error instanceof PruneError && error.code === code;
}
