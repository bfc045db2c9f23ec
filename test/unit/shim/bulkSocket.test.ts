import { connect, createServer } from "node:net";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { BulkSocket } from "../../../src/shim/bulkSocket.js";
import { FRAME, frameHeader } from "../../../src/shim/frames.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const headersOf = (streamId: number): Buffer => frameHeader({ length: 0, type: FRAME.headers, flags: 0, streamId });

it("a stream that was forgotten before its headers were sent sends nothing, and others do", async () => {
  const path = join(await temporaryFolder(), "s");
  const server = createServer((peer) => void peer.on("error", () => {}).resume());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = new BulkSocket((onread) => connect({ path, onread }));
  onTestFinished(() => {
    socket.destroy();
    server.close();
  });
  for (const streamId of [1, 3]) socket.open(streamId, { onBegun: () => {}, onData: () => {} });
  socket.forget(1);
  socket.write(Buffer.concat([PREFACE, headersOf(1), headersOf(3)]));
  expect(await Promise.all([1, 3].map((streamId) => socket.send(streamId, [Buffer.of(1)])))).toEqual([false, true]);
});
