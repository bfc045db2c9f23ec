import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FRAME, type FrameHeader, FrameReader, frameHeader, windowUpdate } from "../../../src/shim/frames.js";
import { MAX_FRAME_BYTES } from "../../../src/shim/options.js";
import { inPieces } from "../../fixtures/pieces.js";

const frame = fc
  .record({
    type: fc.constantFrom(FRAME.data, FRAME.headers, FRAME.settings, 6),
    flags: fc.constantFrom(0, 1, 4),
    streamId: fc.nat(2 ** 31 - 1),
    payload: fc.uint8Array({ maxLength: 60 }),
  })
  .map(({ payload, ...header }) => ({ header: { ...header, length: payload.length }, payload: Buffer.from(payload) }));

/** What a reader tells of what comes, its data by the stream. */
function read(pieces: Iterable<Buffer>): { data: Map<number, string>; frames: { header: FrameHeader; whole: string; payload: string }[] } {
  const data = new Map<number, string>();
  const frames: ReturnType<typeof read>["frames"] = [];
  const reader = new FrameReader({
    onData: (streamId, piece) => data.set(streamId, (data.get(streamId) ?? "") + piece.toString("hex")),
    onFrame: (header, bytes, payload) => frames.push({ header, whole: bytes.toString("hex"), payload: payload.toString("hex") }),
  });
  for (const piece of pieces) reader.add(piece);
  return { data, frames };
}

describe("a reader of frames", () => {
  it("tells data from other frames, whatever the pieces that they come in", () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 12 }), fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (sent, sizes) => {
        const bytes = sent.map(({ header, payload }) => Buffer.concat([frameHeader(header), payload]));
        const { data, frames } = read(inPieces(Buffer.concat(bytes), sizes));
        const isData = ({ type, flags }: FrameHeader): boolean => type === FRAME.data && flags === 0;
        expect(frames).toEqual(
          sent.flatMap(({ header, payload }, i) =>
            isData(header) ? [] : [{ header, whole: bytes[i]?.toString("hex"), payload: payload.toString("hex") }],
          ),
        );
        const expected = new Map<number, string>();
        for (const { header, payload } of sent) {
          if (isData(header) && payload.length > 0)
            expected.set(header.streamId, (expected.get(header.streamId) ?? "") + payload.toString("hex"));
        }
        expect(data).toEqual(expected);
      }),
    );
  });

  it("reads a window's update as it is written", () => {
    const { frames } = read([windowUpdate(7, 2 ** 31 - 1)]);
    expect(frames).toMatchObject([{ header: { type: FRAME.windowUpdate, flags: 0, streamId: 7, length: 4 }, payload: "7fffffff" }]);
  });

  it.each([
    ["padded data", { type: FRAME.data, flags: 0x8, streamId: 1, length: 9 }, /padded/],
    ["more than it was said to take", { type: FRAME.headers, flags: 0, streamId: 1, length: MAX_FRAME_BYTES + 1 }, /1048577 bytes/],
  ])("refuses %s", (_what, header, message) => {
    expect(() => read([frameHeader(header)])).toThrow(message);
  });
});
