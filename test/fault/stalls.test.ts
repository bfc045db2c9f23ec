import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { ShimProcess } from "../../src/shim/process.js";
import type { ShimSession } from "../../src/shim/session.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { failureOf, isAlive, spawnForTest } from "../fixtures/failures.js";
import { FlakyProxy } from "../fixtures/flakyProxy.js";
import { planted, sliceIn } from "../fixtures/planted.js";
import { cutterOver, noShim, openSession } from "../fixtures/sessions.js";

const TIMEOUTS = { unary: 1_000, stall: 1_500, exitNews: 200 };
const SLACK_MS = 2_000;

describe("a shim that is stopped", () => {
  it("stalls the calls that have one answer, and takes them again when it goes on", async () => {
    const bridge = await spawnForTest({ timeouts: TIMEOUTS });
    process.kill(bridge.pid, "SIGSTOP");
    const { error, ms } = await failureOf(sliceIn(await temporaryFolder(), bridge));
    expect(error).toMatchObject({ code: "SHIM_STALLED" });
    expect(ms).toBeLessThan(TIMEOUTS.unary + TIMEOUTS.exitNews + SLACK_MS);
    process.kill(bridge.pid, "SIGCONT");
    expect((await sliceIn(await temporaryFolder(), bridge)).shards).toHaveLength(1);
  });

  it("stalls what it was working on, and takes work again when it goes on", async () => {
    const bridge = await spawnForTest({ ...planted("slow_writes"), timeouts: TIMEOUTS });
    const folder = await temporaryFolder();
    let stopped = 0;
    const onProgress = (): void => {
      if (stopped > 0) return;
      stopped = performance.now();
      process.kill(bridge.pid, "SIGSTOP");
    };
    const { error } = await failureOf(sliceIn(folder, bridge, { onProgress }));
    expect(error).toMatchObject({ code: "SHIM_STALLED", detail: "the shim was silent for 1.5 s" });
    expect(performance.now() - stopped).toBeLessThan(TIMEOUTS.stall + TIMEOUTS.exitNews + SLACK_MS);
    expect(existsSync(join(folder, "child"))).toBe(false);
    process.kill(bridge.pid, "SIGCONT");
    expect((await sliceIn(await temporaryFolder(), bridge)).shards).toHaveLength(1);
  });

  it("ends when the bridge is closed", async () => {
    const bridge = await spawnForTest({ timeouts: { terminate: 20_000 } });
    process.kill(bridge.pid, "SIGSTOP");
    const started = performance.now();
    await bridge.close();
    expect(performance.now() - started).toBeLessThan(5_000);
    expect(isAlive(bridge.pid)).toBe(false);
  });
});

describe("a shim that heeds nothing", () => {
  it("is killed when the bridge is closed, and what waits for it ends at once", async () => {
    const bridge = await spawnForTest(planted("endless_write"));
    const waiting = failureOf(sliceIn(await temporaryFolder(), bridge));
    await sleep(1_000);
    const started = performance.now();
    const closed = bridge.close();
    expect((await waiting).error).toMatchObject({ code: "SHIM_SHUTTING_DOWN" });
    expect(performance.now() - started).toBeLessThan(500);
    await closed;
    expect(performance.now() - started).toBeLessThan(1_000 + SLACK_MS);
    expect(isAlive(bridge.pid)).toBe(false);
    expect((await failureOf(sliceIn(await temporaryFolder(), bridge))).error).toMatchObject({ code: "SHIM_SHUTTING_DOWN" });
  });
});

describe("a connection that goes silent", () => {
  it("is given up for another one, over which the operation goes on", async () => {
    const shim = await ShimProcess.start(planted("slow_writes"));
    onTestFinished(() => shim.stop());
    const proxy = await FlakyProxy.to(shim.address);
    const session = await openSession(shim, { address: proxy.address, timeouts: { keepalive: 500, keepaliveAnswer: 500 } });
    onTestFinished(() => session.close());
    let frozen = false;
    const onProgress = (): void => {
      if (!frozen) proxy.freeze();
      frozen = true;
    };
    expect((await sliceIn(await temporaryFolder(), cutterOver(session), { onProgress })).shards).toHaveLength(1);
    expect(frozen).toBe(true);
    // The index sets of the cut came over one of their own.
    expect(proxy.connections).toBe(3);
  });
});

describe("an address where no shim answers", () => {
  const open = (path: string, connect: number): Promise<ShimSession> => openSession(noShim(path), { timeouts: { connect, exitNews: 100 } });

  /** Listens until the test ends, and does something with each connection. */
  async function listen(onConnection: (socket: Socket) => void): Promise<string> {
    const path = join(await temporaryFolder(), "peer.sock");
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket.on("error", () => {}));
      onConnection(socket);
    });
    await once(server.listen(path), "listening");
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return path;
  }

  it("but something that says nothing", async () => {
    const path = await listen(() => {});
    const { error, ms } = await failureOf(open(path, 500));
    expect(error).toMatchObject({ code: "SHIM_UNREACHABLE", detail: expect.stringContaining(path) });
    expect(ms).toBeLessThan(600 + SLACK_MS);
  });

  it("but something else, or nothing at all", async () => {
    const paths = [
      await listen((socket) => void socket.write("HTTP/1.1 400 Bad Request\r\n\r\n")),
      await listen((socket) => void socket.destroy()),
      join(await temporaryFolder(), "nothing.sock"),
    ];
    for (const { error, ms } of await Promise.all(paths.map((path) => failureOf(open(path, 60_000))))) {
      expect(error).toMatchObject({ code: "SHIM_UNREACHABLE", detail: expect.stringMatching(/Last error|connect/) });
      expect(ms).toBeLessThan(5_000 + SLACK_MS);
    }
  });
});
