import type { ClientDuplexStream } from "@grpc/grpc-js";
import { onAbort } from "../cancel.js";
import { PruneError } from "../errors.js";
import type { FeedRequest, FeedResponse, FeedServiceClient } from "../gen/prunebridge/v1/operation.js";
import type { Batch, Returns, Tensor } from "../tensor.js";
import type { Drawing } from "./drawing.js";
import { batchMessages, TensorAssembler } from "./tensors.js";
import { fromCallError, isUnavailable } from "./translate.js";

/** A batch to run, and what it gives back to whom. */
export interface Ask {
  readonly batch: Batch;
  readonly returns?: Returns;
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

type Stream = ClientDuplexStream<FeedRequest, FeedResponse>;

/**
 * Sends batches to the operation that reads the feed, drawing the next one only as the shim takes them: at most a few are in flight. Ends
 * when all are taken and answered, or with the operation, also while the next batch is being waited for.
 *
 * @param abandoned - fires when the operation is no longer waited for
 * @throws PruneError FEED_LOST where the operation ended first or the connection broke; what `asks` throws, as it is
 */
export async function sendFeed(
  feeds: FeedServiceClient,
  { id, asks }: FeedSource,
  drawing: Drawing,
  abandoned: AbortSignal,
): Promise<void> {
  const stream = feeds.feed();
  const undo = onAbort(abandoned, () => stream.cancel());
  const unanswered: { ask: Ask; batch: number }[] = [];
  const taken = receive(stream, unanswered);
  const ending = new Ending(taken);
  try {
    // The shim ends a stream with its operation only once it knows which that is.
    stream.write({ feedId: id });
    const sent = await sendAll(stream, asks, { drawing, ending, unanswered });
    if (sent !== undefined) stream.end({ feedId: id, part: { $case: "feedEnd", value: { batches: sent } } });
    await taken;
  } catch (error) {
    stream.cancel();
    await ending.until(new Promise(() => {}));
    throw error;
  } finally {
    undo();
    drawing.end();
  }
}

interface Sending {
  readonly drawing: Drawing;
  readonly ending: Ending;
  readonly unanswered: { ask: Ask; batch: number }[];
}

/** Gives the number of batches; undefined where the stream ended first. */
async function sendAll(stream: Stream, asks: Asks, { drawing, ending, unanswered }: Sending): Promise<number | undefined> {
  const iterator = drawing.run(() => asks[Symbol.asyncIterator]());
  let exhausted = false;
  try {
    for (let sent = 0; ; sent++) {
      const drawn = await ending.until(drawing.run(() => iterator.next()));
      exhausted = drawn?.done ?? false;
      if (drawn?.done) return sent;
      if (!drawn) return undefined;
      const { batch, returns } = drawn.value;
      if (returns) unanswered.push({ ask: drawn.value, batch: sent });
      for (const message of batchMessages(batch, returns)) {
        if (ending.ended) return undefined;
        if (!stream.write(message)) await ending.until(drained(stream));
      }
    }
  } finally {
    // Not awaited: it may be waiting itself.
    if (!exhausted) drawing.run(() => void iterator.return?.().catch(() => {}));
  }
}

/** Hands out answers as they come; resolves when every batch was taken. */
function receive(stream: Stream, unanswered: Sending["unanswered"]): Promise<void> {
  let answer = new TensorAssembler();
  let taken = false;
  const take = ({ part }: FeedResponse): void => {
    if (part?.$case === "chunk") answer.add(part.value);
    else if (part?.$case === "feedTaken") taken = true;
    else if (part?.$case === "answerEnd") {
      const first = unanswered.shift();
      if (first?.batch !== part.value.batch) throw new PruneError("INTERNAL", `the shim answered batch ${part.value.batch} out of turn`);
      first.ask.answer?.(answer.finish());
      answer = new TensorAssembler();
    }
  };
  return new Promise((resolve, reject) => {
    stream.on("data", (response: FeedResponse) => {
      try {
        take(response);
      } catch (error) {
        reject(error);
        stream.cancel();
      }
    });
    stream.on("error", (error) => reject(isUnavailable(error) ? broken(error) : fromCallError(error)));
    stream.on("end", () => {
      if (taken) resolve();
      else reject(new PruneError("INTERNAL", "the shim ended a feed without a word of its batches"));
    });
  });
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
function broken(cause: Error): PruneError {
  return new PruneError("FEED_LOST", `the connection broke while batches were sent: ${cause.message}`, { hint: "run it again", cause });
}

// Not events.once(), which would reject with gRPC's own error: what ended the call is told by its end.
function drained(stream: NodeJS.EventEmitter): Promise<void> {
  return new Promise((resolve) => stream.once("drain", resolve));
}
