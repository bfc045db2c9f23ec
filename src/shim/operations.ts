import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Metadata } from "@grpc/grpc-js";
import { onAbort, throwIfCancelled } from "../cancel.js";
import { type ErrorCode, PruneError } from "../errors.js";
import { ErrorReason } from "../gen/prunebridge/v1/error.js";
import {
  OperationServiceService,
  ReadResultRequest,
  type StartRequest,
  type Succeeded,
  type WatchResponse,
} from "../gen/prunebridge/v1/operation.js";
import type { RunOptions } from "../progress.js";
import { withTotal } from "../progress.js";
import type { Tensor } from "../tensor.js";
import { readResultResponse } from "./chunks.js";
import { Drawing } from "./drawing.js";
import { type FeedSource, sendFeed } from "./feed.js";
import { Holdings, type Outcome } from "./holdings.js";
import type { Timeouts } from "./options.js";
import { Retries } from "./retries.js";
import { callUnary, readBulk, readStream, type Stubs } from "./rpc.js";
import { Silence } from "./silence.js";
import { TensorAssembler } from "./tensors.js";
import { fromDetail, isUnavailable } from "./translate.js";

const META = new Metadata();
const { path: READ_RESULT } = OperationServiceService.readResult;

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
    const end = this.#holdings.begin(operationId, work, cancel);
    const feeding = feed ? settle(sendFeed(this.#stubs.bulk, feed, new Drawing(this), abandoned)) : undefined;
    // The caller's own iterator failing is the cause of what the operation then reports.
    void feeding?.then(({ error }) => error !== undefined && cancel());
    try {
      const report = onProgress && feed ? withTotal(onProgress, () => feed.asks.size) : onProgress;
      const outcome = await this.#watch(operationId, report, abandoned);
      this.#holdings.note(operationId, work, outcome);
      if (outcome.$case === "failed") throw fromDetail(outcome.value);
      const { error } = (await feeding) ?? {};
      // Some of what it gave back may be lost.
      if (error !== undefined) throw error;
      return { operationId, done: outcome.value };
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

  /**
   * Cancels what runs, and closes the models that were opened. A shim that is at other work is not waited for.
   *
   * @throws PruneError what kept a model from being closed, where that was known in time
   */
  async release(abandoned: AbortSignal): Promise<void> {
    await this.#holdings.cancelAll(this.#timeouts.detach);
    try {
      await this.#inTime(this.#holdings.openings.map(([operationId, work]) => this.#endOpening(operationId, work, abandoned)));
    } finally {
      const closing = this.#holdings.models.map((modelId) => this.#start({ $case: "closeModel", value: { modelId } }));
      await this.#inTime((await Promise.all(closing)).map((operationId) => this.#endClosing(operationId, abandoned)));
    }
  }

  /** Fetches the tensors that an operation left. */
  async readResult(operationId: string, abandoned: AbortSignal): Promise<ReadonlyMap<string, Tensor>> {
    for (const retries = new Retries(); ; ) {
      const assembler = new TensorAssembler();
      try {
        const request = ReadResultRequest.encode({ operationId }).finish();
        const onMessage = (message: Buffer): void => assembler.add(readResultResponse(message).chunk);
        await readBulk(this.#stubs.bulk, { path: READ_RESULT, request, onMessage }, new Silence(this.#timeouts.stall), abandoned);
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

  /** Watches an operation to its end. What `onProgress` throws is the caller's own. */
  async #watch(operationId: string, onProgress: RunOptions["onProgress"], abandoned: AbortSignal): Promise<Outcome> {
    for await (const event of this.#events(operationId, abandoned)) {
      if (event.$case !== "progress") return event;
      onProgress?.({ ...event.value, etaSeconds: event.value.etaSeconds });
    }
    throw new PruneError("INTERNAL", `the watch of operation ${operationId} ended without its last event`);
  }

  async *#events(operationId: string, abandoned: AbortSignal): AsyncGenerator<Event, void, void> {
    const [silence, retries] = [new Silence(this.#timeouts.stall), new Retries()];
    for (let seen = 0; ; ) {
      try {
        const stream = this.#stubs.operations.watch({ operationId, afterSeq: seen });
        for await (const { seq, event } of readStream(stream, silence, abandoned)) {
          retries.reset();
          if (event === undefined || seq <= seen) continue;
          seen = seq;
          yield event;
        }
        return;
      } catch (error) {
        await retries.pause(error);
      }
    }
  }

  async #endOpening(operationId: string, work: Work, abandoned: AbortSignal): Promise<void> {
    await this.#cancel(operationId);
    this.#holdings.note(operationId, work, await this.#watch(operationId, undefined, abandoned));
  }

  async #endClosing(operationId: string, abandoned: AbortSignal): Promise<void> {
    const outcome = await this.#watch(operationId, undefined, abandoned);
    // It may have been closed by a call whose answer was lost.
    if (outcome.$case === "failed" && outcome.value.reason !== ErrorReason.ERROR_REASON_UNKNOWN_MODEL) throw fromDetail(outcome.value);
  }

  async #inTime(ends: readonly Promise<void>[]): Promise<void> {
    const failures: unknown[] = [];
    const all = Promise.all(ends.map((end) => end.catch((error: unknown) => void failures.push(error))));
    await Promise.race([all, sleep(this.#timeouts.detach, undefined, { ref: false })]);
    if (failures.length > 0) throw failures[0];
  }

  async #cancel(operationId: string): Promise<void> {
    await callUnary((options, done) => this.#stubs.operations.cancel({ operationId }, META, options, done), this.#timeouts.unary);
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
