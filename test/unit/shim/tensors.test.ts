import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FeedRequest, FeedResponse } from "../../../src/gen/prunebridge/v1/operation.js";
import { Dtype, type TensorChunk } from "../../../src/gen/prunebridge/v1/tensor.js";
import { readFeedResponse, writeRequest } from "../../../src/shim/chunks.js";
import { CHUNK_BYTES } from "../../../src/shim/options.js";
import { batchMessages, TensorAssembler } from "../../../src/shim/tensors.js";
import { byteLength, DTYPE_BITS, type Dtype as DtypeName, type Tensor } from "../../../src/tensor.js";

const DTYPES = (Object.keys(DTYPE_BITS) as DtypeName[]).filter((dtype) => DTYPE_BITS[dtype] >= 8);
const shape = fc.oneof(
  fc.array(fc.nat(5), { maxLength: 5 }),
  fc.constantFrom([CHUNK_BYTES / 8], [2, CHUNK_BYTES / 8], [CHUNK_BYTES / 8 + 1], [3, CHUNK_BYTES / 8 - 1]),
);
/** Tensors that lie anywhere in their memory. */
const tensor = fc.record({ dtype: fc.constantFrom(...DTYPES), shape, at: fc.nat(9) }).map(({ dtype, shape, at }): Tensor => {
  const data = new Uint8Array(at + byteLength({ dtype, shape })).map((_, i) => i * 31 + (i >> 8)).subarray(at);
  return { dtype, shape, data };
});
const batch = fc.dictionary(fc.stringMatching(/^[a-z]{1,9}$/), tensor, { maxKeys: 3 });

/** What the far end would answer with, were it to send a batch back as it came. */
function* echo(sent: Record<string, Tensor>): Generator<TensorChunk> {
  for (const message of batchMessages(sent)) {
    const { part } = FeedRequest.decode(Buffer.concat(writeRequest(message)));
    const answer = readFeedResponse(Buffer.from(FeedResponse.encode({ part: part?.$case === "chunk" ? part : undefined }).finish()));
    if (answer.part?.$case === "chunk") yield answer.part.value;
  }
}

function assembled(chunks: Iterable<TensorChunk | undefined>): ReadonlyMap<string, Tensor> {
  const assembler = new TensorAssembler();
  for (const chunk of chunks) assembler.add(chunk);
  return assembler.finish();
}

describe("a batch", () => {
  it("comes back as it was sent, in chunks of the size that was agreed on", () => {
    fc.assert(
      fc.property(batch, (sent) => {
        const chunks = [...echo(sent)];
        expect(chunks.every(({ data }) => data.length <= CHUNK_BYTES)).toBe(true);
        const back = assembled(chunks);
        expect([...back.keys()]).toEqual(Object.keys(sent));
        for (const [name, { data, ...described }] of Object.entries(sent)) {
          expect(back.get(name)).toMatchObject(described);
          expect(Buffer.compare(back.get(name)?.data ?? Buffer.of(1), data)).toBe(0);
        }
      }),
    );
  });
});

describe("an assembler", () => {
  const info = { name: "x", dtype: Dtype.DTYPE_U8, shape: [4] };
  const chunk = (offset: number, text: string, described?: typeof info): TensorChunk => ({
    info: described,
    offset,
    data: Buffer.from(text),
  });

  it("gives what was sent memory of its own", () => {
    const received = chunk(0, "abcd", info);
    const back = assembled([received]);
    received.data.fill(0);
    expect(Buffer.from(back.get("x")?.data ?? []).toString()).toBe("abcd");
  });

  it.each<[string, (TensorChunk | undefined)[], RegExp]>([
    ["no chunk", [undefined], /out of place/],
    ["a first chunk without a description", [chunk(0, "abcd")], /out of place/],
    ["a gap", [chunk(0, "a", info), chunk(2, "cd")], /out of place, at offset 2/],
    ["bytes that were there", [chunk(0, "ab", info), chunk(1, "bcd")], /out of place, at offset 1/],
    ["too many bytes", [chunk(0, "abcde", info)], /out of place/],
    ["too few bytes", [chunk(0, "ab", info)], /2 of a tensor's 4 bytes/],
    ["too few bytes before the next", [chunk(0, "ab", info), chunk(0, "abcd", { ...info, name: "y" })], /2 of a tensor's 4 bytes/],
    ["an unknown dtype", [chunk(0, "", { ...info, dtype: 99 as Dtype })], /unknown dtype 99/],
  ])("refuses %s", (_what, chunks, message) => {
    expect(() => assembled(chunks)).toThrow(message);
  });
});
