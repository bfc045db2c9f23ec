import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameReader } from "../../../src/shim/frames.js";
import { Outgoing } from "../../../src/shim/outgoing.js";

const WINDOW = 65_535;
const FRAME_BYTES = 16_384;

/** What a peer receives. Whoever sent it learns so by `flush`. */
function peer(): { outgoing: Outgoing; received: Map<number, Buffer>; largest: () => number; flush: (error?: Error) => void } {
  const [received, waiting] = [new Map<number, Buffer>(), [] as ((error?: Error) => void)[]];
  let largest = 0;
  const reader = new FrameReader({
    onData: (streamId, piece) => {
      largest = Math.max(largest, piece.length);
      received.set(streamId, Buffer.concat([received.get(streamId) ?? Buffer.alloc(0), piece]));
    },
    onFrame: () => expect.fail("no data"),
  });
  const outgoing = new Outgoing((bytes, onWritten) => {
    reader.add(Buffer.from(bytes));
    if (onWritten) waiting.push(onWritten);
  });
  const flush = (error?: Error): void => {
    for (const tell of waiting.splice(0)) tell(error);
  };
  return { outgoing, received, largest: () => largest, flush };
}

const message = (size: number, value = 1): Uint8Array => new Uint8Array(size).fill(value);
const isSettled = (promise: Promise<boolean>): Promise<boolean> =>
  Promise.race([promise.then(() => true), Promise.resolve(false).then(() => false)]);

describe("what goes out", () => {
  it("is at no time more than the peer allows, and all of it in the end", () => {
    const sizes = fc.array(fc.array(fc.nat(90_000), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 5 });
    const grants = fc.array(fc.tuple(fc.constantFrom(0, 1, 3), fc.integer({ min: 1, max: 70_000 })), { maxLength: 20 });
    fc.assert(
      fc.property(sizes, grants, (messages, granted) => {
        const { outgoing, received, largest } = peer();
        const allowed = new Map([0, 1, 3].map((streamId) => [streamId, WINDOW]));
        const sent = new Map([1, 3].map((streamId) => [streamId, [] as Uint8Array[]]));
        const length = (streamId: number): number => received.get(streamId)?.length ?? 0;
        const check = (): void => {
          for (const streamId of [1, 3]) expect(length(streamId)).toBeLessThanOrEqual(allowed.get(streamId) ?? 0);
          expect(length(1) + length(3)).toBeLessThanOrEqual(allowed.get(0) ?? 0);
        };
        for (const streamId of sent.keys()) outgoing.begin(streamId);
        for (const [i, parts] of messages.entries()) {
          for (const [streamId, all] of sent) {
            const made = parts.map((size, j) => message(size, 16 * i + 4 * j + streamId));
            all.push(...made);
            void outgoing.send(streamId, made);
            check();
          }
        }
        for (const [streamId, bytes] of granted) {
          allowed.set(streamId, (allowed.get(streamId) ?? 0) + bytes);
          outgoing.widen(streamId, bytes);
          check();
        }
        for (const streamId of allowed.keys()) outgoing.widen(streamId, 2 ** 24);
        for (const [streamId, all] of sent) expect(Buffer.compare(received.get(streamId) ?? Buffer.alloc(0), Buffer.concat(all))).toBe(0);
        expect(largest()).toBeLessThanOrEqual(FRAME_BYTES);
      }),
      { numRuns: 50 },
    );
  });

  it("heeds what the peer sets later, for streams that have begun, too", () => {
    const { outgoing, received, largest } = peer();
    outgoing.begin(1);
    outgoing.widen(0, 2 ** 20);
    void outgoing.send(1, [message(300_000)]);
    expect(received.get(1)?.length).toBe(WINDOW);
    outgoing.adjust({ initialWindow: 200_000, maxFrame: 100_000 });
    expect(received.get(1)?.length).toBe(200_000);
    expect(largest()).toBe(100_000);
    outgoing.adjust({ initialWindow: 1_000 });
    outgoing.widen(1, 190_000);
    expect(received.get(1)?.length).toBe(200_000);
    outgoing.widen(1, 10_000);
    expect(received.get(1)?.length).toBe(201_000);
  });

  it("keeps the memory of a message until it was written", async () => {
    const { outgoing, flush } = peer();
    outgoing.begin(1);
    const [first, second] = [outgoing.send(1, [message(10)]), outgoing.send(1, [message(WINDOW)])];
    expect(await isSettled(first)).toBe(false);
    flush();
    expect(await isSettled(first)).toBe(true);
    expect(await isSettled(second)).toBe(false);
    outgoing.widen(1, 10);
    outgoing.widen(0, 10);
    flush();
    expect(await Promise.all([first, second])).toEqual([true, true]);
    outgoing.widen(1, 1);
    outgoing.widen(0, 1);
    const third = outgoing.send(1, [message(1)]);
    flush(new Error("EPIPE"));
    expect(await third).toBe(false);
  });

  it("is dropped with its stream, which nobody waits for", async () => {
    const { outgoing, received } = peer();
    outgoing.begin(1);
    const waiting = outgoing.send(1, [message(WINDOW + 1)]);
    outgoing.end(1);
    expect(await waiting).toBe(false);
    expect(await outgoing.send(1, [message(1)])).toBe(false);
    outgoing.widen(0, WINDOW);
    outgoing.widen(1, WINDOW);
    expect(received.get(1)?.length).toBe(WINDOW);
  });
});
