import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FeedRequest, FeedResponse, ReadResultResponse, Returns } from "../../../src/gen/prunebridge/v1/operation.js";
import { Dtype, type TensorChunk } from "../../../src/gen/prunebridge/v1/tensor.js";
import { readFeedResponse, readResultResponse, writeRequest } from "../../../src/shim/chunks.js";
import { CHUNK_BYTES } from "../../../src/shim/options.js";

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.constantFrom(127, 128, 129, 16_384, CHUNK_BYTES).map((size) => new Uint8Array(size).fill(size % 251)),
);
const chunk = fc.record({
  info: fc.option(
    fc.record({
      name: fc.string({ maxLength: 200 }),
      dtype: fc.constantFrom(Dtype.DTYPE_F32, Dtype.DTYPE_BF16),
      shape: fc.array(fc.nat(2 ** 31 - 1), { maxLength: 6 }),
    }),
    { nil: undefined },
  ),
  offset: fc.oneof(fc.nat(300), fc.constantFrom(2 ** 32, 2 ** 50)),
  data: bytes.map((data) => Buffer.from(data)),
});
const asResponse = (value: TensorChunk): FeedResponse => ({ part: { $case: "chunk", value } });
const whole = <Message>({ encode }: { encode: (message: Message) => { finish(): Uint8Array } }, message: Message): Buffer =>
  Buffer.from(encode(message).finish());

/** A message as it can be compared: its data as text, which is compared at once. */
function comparable(message: FeedRequest | FeedResponse | ReadResultResponse): unknown {
  const chunk = "part" in message ? message.part?.$case === "chunk" && message.part.value : "chunk" in message && message.chunk;
  return chunk ? { ...message, part: undefined, chunk: { ...chunk, data: chunk.data.toString("latin1") } } : message;
}

/** The outcome of decoding, to be compared: a message, or that it was refused. */
function outcome(decode: () => FeedResponse): unknown {
  try {
    return comparable(decode());
  } catch {
    return "refused";
  }
}

describe("a request", () => {
  it("is written as generated code writes it, whatever its chunk", () => {
    fc.assert(
      fc.property(chunk, fc.constantFrom("", "feed"), (value, feedId) => {
        const request: FeedRequest = { feedId, part: { $case: "chunk", value } };
        const expected = FeedRequest.decode(whole(FeedRequest, request));
        expect(comparable(FeedRequest.decode(Buffer.concat(writeRequest(request))))).toEqual(comparable(expected));
      }),
    );
  });

  it.each<FeedRequest["part"]>([
    undefined,
    { $case: "batchEnd", value: { returns: Returns.RETURNS_LOGITS } },
    { $case: "feedEnd", value: { batches: 7 } },
  ])("without a chunk is written as it is: %j", (part) => {
    const request: FeedRequest = { feedId: "feed", part };
    expect(FeedRequest.decode(Buffer.concat(writeRequest(request)))).toEqual(request);
  });
});

describe("a response", () => {
  it("is read as generated code reads it, whatever its chunk", () => {
    fc.assert(
      fc.property(chunk, (value) => {
        const message = whole(FeedResponse, asResponse(value));
        expect(comparable(readFeedResponse(message))).toEqual(comparable(FeedResponse.decode(message)));
        expect(comparable(readResultResponse(message))).toEqual(comparable(ReadResultResponse.decode(message)));
      }),
    );
  });

  it("keeps large data where it was received", () => {
    const message = whole(FeedResponse, asResponse({ info: undefined, offset: 5, data: Buffer.alloc(1000, 7) }));
    expect(readResultResponse(message).chunk?.data.buffer).toBe(message.buffer);
  });

  it.each<FeedResponse["part"]>([undefined, { $case: "answerEnd", value: { batch: 3 } }, { $case: "feedTaken", value: { batches: 300 } }])(
    "without a chunk is read as it is: %j",
    (part) => {
      expect(readFeedResponse(whole(FeedResponse, { part }))).toEqual({ part });
    },
  );

  // Tag, length, content. A serialiser may order fields as it likes, repeat them, and add those of a later contract.
  it.each([
    ["its data first", "0a 06 1a026869 1007"],
    ["its data twice", "0a 08 1a0268691a026f6b"],
    ["its chunk twice", "0a 05 10071a0178 0a 04 1a026f6b"],
    ["something behind its chunk", "0a 04 1a026869 1200"],
    ["fields that are not known", "0a 0d 790000000000000000 1a026869 7d00000000"],
  ])("with %s is read as generated code reads it", (_what, hex) => {
    const message = Buffer.from(hex.replaceAll(" ", ""), "hex");
    expect(comparable(readFeedResponse(message))).toEqual(comparable(FeedResponse.decode(message)));
  });

  it("that is garbled is read as generated code reads it, or refused", () => {
    const sound = whole(
      FeedResponse,
      asResponse({ info: { name: "x", dtype: Dtype.DTYPE_U8, shape: [3] }, offset: 5, data: Buffer.from("abc") }),
    );
    let refused = 0;
    fc.assert(
      fc.property(fc.nat(sound.length - 1), fc.nat(255), fc.nat(sound.length), (at, value, cut) => {
        const garbled = Buffer.from(sound);
        garbled[at] = value;
        for (const message of [garbled, garbled.subarray(0, cut)]) {
          const read = outcome(() => readFeedResponse(message));
          if (read === "refused") refused += 1;
          // Generated code reads on behind some faults.
          else expect(read).toEqual(outcome(() => FeedResponse.decode(message)));
        }
      }),
      { numRuns: 2000, seed: 7 },
    );
    expect(refused).toBeGreaterThan(500);
    expect(refused).toBeLessThan(3500);
  });
});
