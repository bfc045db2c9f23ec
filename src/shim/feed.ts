import type { FeedServiceClient } from "../gen/prunebridge/v1/operation.js";
import type { Batches } from "../tensor.js";
import { batchMessages } from "./tensors.js";
import { fromCallError } from "./translate.js";

/**
 * Sends batches to the operation that reads the feed, drawing the next one only as the shim takes them: at most a few are in flight. Ends
 * when all are taken.
 *
 * @throws PruneError FEED_LOST where the operation ended first; what `batches` throws, as it is
 */
export async function sendFeed(feeds: FeedServiceClient, feedId: string, batches: Batches): Promise<number> {
  let settled = false;
  let call: ReturnType<FeedServiceClient["feed"]> | undefined;
  const taken = new Promise<number>((resolve, reject) => {
    call = feeds.feed((error, response) => (error ? reject(fromCallError(error)) : resolve(response.batches)));
  }).finally(() => {
    settled = true;
  });
  const stream = call as NonNullable<typeof call>; // assigned by the executor, which runs at once
  stream.on("error", () => {}); // told by the callback
  const ended = taken.then(
    () => undefined,
    () => undefined,
  );
  try {
    let sent = 0;
    let first = true;
    for await (const batch of batches) {
      for (const message of batchMessages(batch)) {
        if (settled) return await taken;
        if (!stream.write(first ? { ...message, feedId } : message)) await Promise.race([drained(stream), ended]);
        first = false;
      }
      sent += 1;
    }
    stream.end({ feedId, part: { $case: "feedEnd", value: { batches: sent } } });
    return await taken;
  } catch (error) {
    stream.cancel();
    await ended;
    throw error;
  }
}

// Not events.once(), which would reject with gRPC's own error: what ended the call is told by its callback.
function drained(stream: NodeJS.EventEmitter): Promise<void> {
  return new Promise((resolve) => stream.once("drain", resolve));
}
