import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MessageReader } from "../../../src/shim/messageReader.js";
import { MAX_MESSAGE_BYTES } from "../../../src/shim/options.js";
import { inPieces } from "../../fixtures/pieces.js";

function prefixed(message: Uint8Array, compressed = 0, size = message.length): Buffer {
  const prefix = Buffer.from([compressed, 0, 0, 0, 0]);
  prefix.writeUInt32BE(size, 1);
  return Buffer.concat([prefix, message]);
}

describe("a reader of messages", () => {
  it("puts each together, whatever the pieces that they come in", () => {
    const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 });
    fc.assert(
      fc.property(messages, fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 }), (sent, sizes) => {
        const seen: string[] = [];
        const reader = new MessageReader((message) => seen.push(message.toString("hex")));
        for (const piece of inPieces(Buffer.concat(sent.map((message) => prefixed(message))), sizes)) reader.add(piece);
        expect(seen).toEqual(sent.map((message) => Buffer.from(message).toString("hex")));
        expect(reader.isWithinMessage).toBe(false);
      }),
    );
  });

  it.each([1, 5, 7])("knows that a message is not whole, of which %i bytes came", (bytes) => {
    const reader = new MessageReader(() => expect.fail("a message"));
    reader.add(prefixed(Buffer.from("abc")).subarray(0, bytes));
    expect(reader.isWithinMessage).toBe(true);
  });

  it.each([
    ["is compressed", prefixed(Buffer.from("abc"), 1), 13],
    ["is too long", prefixed(Buffer.from("abc"), 0, MAX_MESSAGE_BYTES + 1), 8],
  ])("refuses a message that %s as soon as its prefix says so", (_what, bytes, code) => {
    const reader = new MessageReader(() => expect.fail("a message"));
    expect(() => reader.add(bytes.subarray(0, 5))).toThrow(expect.objectContaining({ code }));
  });
});
