import { onAbort } from "../cancel.js";
import { PruneError } from "../errors.js";
import { type FeedRequest, FeedServiceService } from "../gen/prunebridge/v1/operation.js";
import type { Batch, Tensor } from "../tensor.js";
import type { BulkCall } from "./bulkCall.js";
import type { BulkConnection } from "./bulkConnection.js";
import { readFeedResponse, writeRequest } from "./chunks.js";
import type { Drawing } from "./drawing.js";
import { type Asked, batchMessages, TensorAssembler } from "./tensors.js";
import { fromCallError, isUnavailable } from "./translate.js";

/** A batch to run, and what it gives back to whom. */
export interface Ask {
  readonly batch: Batch;
  readonly returns?: Asked;
  /** Memory for the tensor that it gives back. Default: the tensor's own. */
  readonly into?: Uint8Array | undefined;
  /** Called with what the batch gives back, where it asks for something. */
  readonly answer?: (tensors: ReadonlyMap<string, Tensor>) => void;
}

/** Batches to run, drawn one after the other. `size` says how many there will be, once that is known. */
export type Asks = AsyncIterable<Ask> & { readonly size?: number | undefined };

/** What an operation reads, where it reads batches. */
export interface FeedSource {
  readonly id: string;
  readonly asks: Asks;
}

const { path: FEED } = FeedServiceService.feed;

/**
 * Sends batches to the operation that reads the feed, drawing the next one only as the shim takes them: at most a few are in flight. Ends
 * when all are taken and answered, or with the operation, also while the next batch is being waited for.
 *
 * @param abandoned - fires when the operation is no longer waited for
 * @throws PruneError FEED_LOST where the operation ended first or the connection broke; what `asks` throws, as it is
 */
export async function sendFeed(bulk: BulkConnection, { id, asks }: FeedSource, drawing: Drawing, abandoned: AbortSignal): Promise<void> {
  const answers = new Answers();
  const call = begin(bulk, answers);
  const undo = onAbort(abandoned, () => call.cancel());
  const taken = call.done.then(
    () => answers.finish(),
    (error) => Promise.reject(failure(error)),
  );
  const ending = new Ending(taken);
  try {
    // The shim ends a stream with its operation only once it knows which that is.
    void send(call, { feedId: id, part: undefined });
    const sent = await sendAll(call, asks, { drawing, ending, answers });
    if (sent !== undefined) {
      void send(call, { feedId: id, part: { $case: "feedEnd", value: { batches: sent } } });
      call.end();
    }
    await taken;
  } catch (error) {
    call.cancel();
    await ending.until(new Promise(() => {}));
    throw error;
  } finally {
    undo();
    drawing.end();
  }
}

function begin(bulk: BulkConnection, answers: Answers): BulkCall {
  try {
    return bulk.open({ path: FEED, onMessage: (message) => answers.take(message) });
  } catch (error) {
    throw failure(error);
  }
}

interface Sending {
  readonly drawing: Drawing;
  readonly ending: Ending;
  readonly answers: Answers;
}

/** Gives the number of batches; undefined where the stream ended first. */
async function sendAll(call: BulkCall, asks: Asks, { drawing, ending, answers }: Sending): Promise<number | undefined> {
  const iterator = drawing.run(() => asks[Symbol.asyncIterator]());
  let exhausted = false;
  try {
    for (let sent = 0; ; sent++) {
      const drawn = await ending.until(drawing.run(() => iterator.next()));
      exhausted = drawn?.done ?? false;
      if (drawn?.done) return sent;
      if (!drawn) return undefined;
      const { batch, returns } = drawn.value;
      if (returns) answers.expect(drawn.value, sent);
      for (const message of batchMessages(batch, returns)) {
        if (ending.ended) return undefined;
        const sending = send(call, message);
        // Whoever is asked for the next batch may use the memory of this one.
        if (call.isFull || message.part?.$case === "batchEnd") await ending.until(sending);
      }
    }
  } finally {
    // Not awaited: it may be waiting itself.
    if (!exhausted) drawing.run(() => void iterator.return?.().catch(() => {}));
  }
}

/** Hands out answers as they come. */
class Answers {
  readonly #expected: { readonly ask: Ask; readonly batch: number }[] = [];
  #assembler: TensorAssembler | undefined;
  #taken = false;

  /** Says that a batch will be answered, after those before it. */
  expect(ask: Ask, batch: number): void {
    this.#expected.push({ ask, batch });
  }

  /** Takes a message of the shim. */
  take(message: Buffer): void {
    const { part } = readFeedResponse(message);
    if (part?.$case === "chunk") this.#assemble().add(part.value);
    else if (part?.$case === "feedTaken") this.#taken = true;
    else if (part?.$case === "answerEnd") {
      const first = this.#expected.shift();
      if (first?.batch !== part.value.batch) throw new PruneError("INTERNAL", `the shim answered batch ${part.value.batch} out of turn`);
      first.ask.answer?.((this.#assembler ?? new TensorAssembler()).finish());
      this.#assembler = undefined;
    }
  }

  #assemble(): TensorAssembler {
    this.#assembler ??= new TensorAssembler(this.#expected[0]?.ask.into);
    return this.#assembler;
  }

  /** Throws INTERNAL where the shim has not said that it took every batch. */
  finish(): void {
    if (!this.#taken) throw new PruneError("INTERNAL", "the shim ended a feed without a word of its batches");
  }
}

function send(call: BulkCall, request: FeedRequest): Promise<void> {
  return call.write(writeRequest(request));
}

/** The end of a stream, which nothing may be waited for beyond. */
class Ending {
  ended = false;
  #tell: () => void = () => {};

  constructor(end: Promise<unknown>) {
    const tell = (): void => {
      this.ended = true;
      this.#tell();
    };
    end.then(tell, tell);
  }

  /** The outcome of some work, or undefined where the stream ends first. One work at a time: unlike a race, this keeps none of them. */
  until<T>(work: Promise<T>): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      this.#tell = () => resolve(undefined);
      if (this.ended) this.#tell();
      work.then(resolve, reject);
    });
  }
}

// A feed cannot be taken up again: the shim does not know which batch the sender would go on with.
function failure(error: unknown): PruneError {
  if (!isUnavailable(error)) return fromCallError(error);
  const { message } = error as Error; // an error of gRPC's
  return new PruneError("FEED_LOST", `the connection broke while batches were sent: ${message}`, { hint: "run it again", cause: error });
}
