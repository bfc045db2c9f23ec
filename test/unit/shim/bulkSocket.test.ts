import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { BulkSocket } from "../../../src/shim/bulkSocket.js";
import { FRAME, frameHeader, SETTING, windowUpdate } from "../../../src/shim/frames.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const HEADER_BYTES = 9;
const ACK = 0x1;
/** As every connection begins. */
const FIRST_WINDOW = 65_535;
const headersOf = (streamId: number): Buffer => frameHeader({ length: 0, type: FRAME.headers, flags: 0, streamId });

/** A connection of which both ends are the test's, until it ends. */
async function connected(onPeer: (peer: Socket) => void): Promise<BulkSocket> {
  const path = join(await temporaryFolder(), "s");
  const server = createServer((peer) => onPeer(peer.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = new BulkSocket((onread) => connect({ path, onread }));
  onTestFinished(() => {
    socket.destroy();
    server.close();
  });
  return socket;
}

function settings(...values: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(6 * values.length);
  for (const [i, [id, value]] of values.entries()) payload.writeUInt32BE(value, payload.writeUInt16BE(id, 6 * i));
  return Buffer.concat([frameHeader({ length: payload.length, type: FRAME.settings, flags: 0, streamId: 0 }), payload]);
}

/** The frames that have come whole. */
function framesIn(pieces: readonly Buffer[]): { type: number | undefined; length: number }[] {
  const frames: { type: number | undefined; length: number }[] = [];
  for (let rest = Buffer.concat(pieces).subarray(PREFACE.length); rest.length >= HEADER_BYTES; ) {
    const length = rest.readUIntBE(0, 3);
    if (rest.length < HEADER_BYTES + length) break;
    frames.push({ type: rest[3], length });
    rest = rest.subarray(HEADER_BYTES + length);
  }
  return frames;
}

function dataOf(frames: ReturnType<typeof framesIn>): number {
  return frames.filter(({ type }) => type === FRAME.data).reduce((sum, { length }) => sum + length, 0);
}

it("a stream that was forgotten before its headers were sent sends nothing, and others do", async () => {
  const socket = await connected((peer) => peer.resume());
  for (const streamId of [1, 3]) socket.open(streamId, { onBegun: () => {}, onData: () => {} });
  socket.forget(1);
  socket.write(Buffer.concat([PREFACE, headersOf(1), headersOf(3)]));
  expect(await Promise.all([1, 3].map((streamId) => socket.send(streamId, [Buffer.of(1)])))).toEqual([false, true]);
});

it("DATA keeps to what the peer set before until what it sets now was acknowledged", async () => {
  const larger = 3 * FIRST_WINDOW;
  const bytes: Buffer[] = [];
  let raised = false;
  const socket = await connected((peer) => {
    peer.on("data", (piece) => {
      bytes.push(piece);
      if (raised || dataOf(framesIn(bytes)) < FIRST_WINDOW) return;
      raised = true;
      const limits = settings([SETTING.initialWindowSize, larger], [SETTING.maxFrameSize, larger]);
      peer.write(Buffer.concat([limits, windowUpdate(0, larger)]));
    });
  });
  socket.open(1, { onBegun: () => {}, onData: () => {} });
  socket.write(Buffer.concat([PREFACE, headersOf(1)]));
  const sent = socket.send(1, [Buffer.alloc(larger)]);
  await once(socket, "data");
  socket.write(frameHeader({ length: 0, type: FRAME.settings, flags: ACK, streamId: 0 }));
  expect(await sent).toBe(true);
  await expect.poll(() => dataOf(framesIn(bytes))).toBe(larger);
  const frames = framesIn(bytes);
  const acknowledged = frames.findIndex(({ type }) => type === FRAME.settings);
  expect(dataOf(frames.slice(0, acknowledged))).toBe(FIRST_WINDOW);
  expect(frames.slice(acknowledged + 1)).toEqual([{ type: FRAME.data, length: larger - FIRST_WINDOW }]);
});
