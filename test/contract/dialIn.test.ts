// Jobs that dial in where they take no connections themselves: who is let in, and what is carried.
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { type Batch, Bridge, type BridgeListener, type ListenOptions, PruneError, tokenBatch } from "../../src/index.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { ask, DialOut, dial } from "../fixtures/dialOut.js";
import { issue, type Listener, makeAuthority, startListener, TOKENS } from "../fixtures/listeners.js";

let root: string;
let parent: string;
let shim: Listener;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  parent = await writeCheckpoint(join(root, "parent"));
  shim = await startListener(root);
});
afterAll(async () => {
  await shim?.stop();
  await rm(root, { recursive: true, force: true });
});

const token = TOKENS.change;
const batch = (): Batch =>
  tokenBatch(
    BigInt64Array.from({ length: 16 }, (_, i) => BigInt(i)),
    2,
  );

async function listen(options: Partial<ListenOptions> = {}, address = "127.0.0.1:0"): Promise<BridgeListener> {
  const listener = await Bridge.listen(address, { token, ...options });
  onTestFinished(() => listener.close());
  return listener;
}

function portOf({ address }: BridgeListener): number {
  return Number(address.split(":").at(-1));
}

function jobFor(listener: BridgeListener, ca?: Buffer): DialOut {
  const job = new DialOut({ port: portOf(listener), token, from: Number(shim.port), ...(ca && { ca }) });
  onTestFinished(() => job.stop());
  return job;
}

/** A connection that was let in, and whose job then went away without a word. */
async function leaveBehind(port: number): Promise<Socket> {
  const socket = await dial(port);
  socket.write(`${JSON.stringify({ prunebridge_dial: 1, token })}\n`);
  socket.resume();
  await sleep(100);
  return socket;
}

describe("a job that dials in", () => {
  it("is worked with as one that was attached to, also when its connection breaks, and again by another bridge", async () => {
    const listener = await listen();
    const job = jobFor(listener);
    await using bridge = await listener.accept();
    const model = await bridge.open(parent);
    const loss = await model.loss([batch()]);
    job.breakOff();
    expect(await model.loss([batch()])).toBe(loss);
    await expect(listener.accept()).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/connected/) });
    await bridge.close();
    await using again = await listener.accept();
    expect(again.shim.bootId).toBe(shim.bootId);
  });

  it("may come before it is waited for, and over TLS", async () => {
    const folder = await temporaryFolder();
    const authority = await makeAuthority(folder, "authority");
    const { cert, key } = await issue(folder, authority, "orchestrator", "subjectAltName=DNS:localhost");
    const listener = await listen({ tls: { cert, key } }, "0.0.0.0:0");
    jobFor(listener, await readFile(authority.cert));
    await sleep(200);
    await using bridge = await listener.accept();
    expect(await (await bridge.open(parent)).loss([batch()])).toBeGreaterThan(0);
  });

  it("is taken before connections that nobody is behind any more, and after them", async () => {
    const listener = await listen({ timeouts: { dialIn: 1_000 } });
    const port = portOf(listener);
    const left = await leaveBehind(port);
    const job = jobFor(listener);
    await sleep(200);
    await using bridge = await listener.accept();
    expect(bridge.shim.bootId).toBe(shim.bootId);
    expect(left.destroyed).toBe(true);
    job.stop();
    const silent = await leaveBehind(port);
    const model = bridge.open(parent).then((opened) => opened.loss([batch()]));
    await once(silent, "close");
    jobFor(listener);
    expect(await model).toBeGreaterThan(0);
  });

  it("is waited for until the caller or the listener ends that", async () => {
    const listener = await listen();
    await expect(listener.accept({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: "CANCELLED" });
    const waiting = listener.accept();
    listener.close();
    await expect(waiting).rejects.toMatchObject({ code: "SHIM_SHUTTING_DOWN" });
  });
});

describe("whoever else dials in", () => {
  const line = (said: unknown): string => `${JSON.stringify(said)}\n`;
  it.each([
    ["another token", line({ prunebridge_dial: 1, token: "another-token-than-that" }), /the token is not/],
    ["no token", line({ prunebridge_dial: 1 }), /the first line is not/],
    ["another version", line({ prunebridge_dial: 2, token }), /the first line is not/],
    ["HTTP", "GET / HTTP/1.1\r\n", /the first line is not/],
    ["bytes", `${"\u0000\u00ff".repeat(40)}\n`, /the first line is not/],
    ["a long line", `{"prunebridge_dial":1,"token":"${"x".repeat(5000)}"}\n`, /longer than 4096 bytes/],
    ["a line without end", "x".repeat(100_000), /longer than 4096 bytes/],
    ["more than is asked for", `${line({ prunebridge_dial: 1, token })}PRI * HTTP/2.0`, /more than one line/],
    ["nothing", "", /no line came within 0.3 s/],
  ])("with %s is told why not, and hung up on", async (_what, said, why) => {
    const listener = await listen({ timeouts: { dialIn: 300 } });
    const answer = await ask(await dial(portOf(listener)), said);
    expect(answer).toEqual({ error: expect.stringMatching(why) });
    expect(JSON.stringify(answer)).not.toContain(token);
    await expect(listener.accept({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: "CANCELLED" });
  });

  it("keeps no job out, however many they are and however long they are silent", async () => {
    const listener = await listen();
    const silent = await Promise.all(Array.from({ length: 200 }, () => dial(portOf(listener))));
    onTestFinished(() => void silent.forEach((socket) => void socket.destroy()));
    const open = (): number => silent.filter(({ readyState }) => readyState === "open").length;
    await vi.waitFor(() => expect(open()).toBeLessThanOrEqual(64), { timeout: 5_000 });
    jobFor(listener);
    await using bridge = await listener.accept();
    expect(bridge.shim.bootId).toBe(shim.bootId);
  });

  it("and speaks before it is answered is dropped", async () => {
    const listener = await listen();
    const socket = await dial(portOf(listener));
    socket.write(line({ prunebridge_dial: 1, token }));
    await sleep(50);
    expect(await ask(socket, "PRI * HTTP/2.0")).toEqual({ error: "hung up" });
    jobFor(listener);
    await using bridge = await listener.accept();
    expect(bridge.shim.bootId).toBe(shim.bootId);
  });

  it("and speaks no TLS where that is asked for is dropped", async () => {
    const folder = await temporaryFolder();
    const { cert, key } = await makeAuthority(folder, "self");
    const listener = await listen({ tls: { cert, key }, timeouts: { dialIn: 300 } });
    expect(await ask(await dial(portOf(listener)), line({ prunebridge_dial: 1, token }))).toEqual({ error: "hung up" });
  });
});

describe("an address to listen on", () => {
  it.each<[string, string, Partial<ListenOptions>, RegExp]>([
    ["that others reach, without TLS", "0.0.0.0:0", {}, /in the clear/],
    ["that is a unix socket", "unix:/tmp/x", {}, /over TCP/],
    ["without a token", "127.0.0.1:0", { token: undefined }, /needs a token/],
    ["of another machine", "192.0.2.1:0", { tls: undefined }, /in the clear/],
  ])("%s is refused", async (_what, address, options, why) => {
    await expect(Bridge.listen(address, { token, ...options })).rejects.toMatchObject({
      code: "BAD_OPTION",
      detail: expect.stringMatching(why),
    });
  });

  it("that is taken is refused", async () => {
    const listener = await listen();
    const error = await Bridge.listen(listener.address, { token }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(PruneError);
    expect(error).toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/EADDRINUSE/) });
  });
});
