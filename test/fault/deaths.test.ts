import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { describe, expect, it, onTestFinished } from "vitest";
import { Bridge, verify } from "../../src/index.js";
import { makeSocketFolder, SOCKET, TOKEN_FILE } from "../../src/shim/socketFolder.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { failureOf, isAlive, spawnForTest } from "../fixtures/failures.js";
import { planted, sliceIn } from "../fixtures/planted.js";

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures");
const BOUND_MS = 5_000;

describe("a shim that is killed while it slices", () => {
  it("gives the caller the error at once, and another one makes the child", async () => {
    const folder = await temporaryFolder();
    const mortal = await spawnForTest(planted("slow_writes"));
    let killed = 0;
    const onProgress = (): void => {
      killed ||= performance.now();
      process.kill(mortal.pid, "SIGKILL");
    };
    const { error } = await failureOf(sliceIn(folder, mortal, { onProgress }));
    expect(error).toMatchObject({ code: "SHIM_DIED", detail: expect.stringMatching(/SIGKILL/) });
    expect(performance.now() - killed).toBeLessThan(BOUND_MS);
    expect(existsSync(join(folder, "child"))).toBe(false);
    await sliceIn(folder, await spawnForTest());
    await verify(join(folder, "child"));
  });
});

describe("a parent that is killed while its shim computes without letting its threads run", () => {
  it("leaves no shim", async () => {
    const args = [await writeCheckpoint(await temporaryFolder()), join(FIXTURES, "python")];
    const parent = execa(process.execPath, ["--import", "tsx", join(FIXTURES, "spawnAndHold.ts"), ...args], {
      reject: false,
      buffer: false,
      stderr: "inherit",
    });
    const { value } = await createInterface({ input: parent.stdout })[Symbol.asyncIterator]().next();
    const pid = Number(value);
    expect(isAlive(pid)).toBe(true);
    const killed = performance.now();
    parent.kill("SIGKILL");
    await parent;
    while (isAlive(pid) && performance.now() - killed < BOUND_MS) await sleep(20);
    expect(isAlive(pid)).toBe(false);
  });
});

describe("a bridge that is closed while its shim loads", () => {
  it("ends what waits at once, and the shim when it has loaded", async () => {
    const bridge = await spawnForTest({ timeouts: { terminate: 30_000 } });
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    const loading = failureOf(model.load());
    await sleep(300);
    const started = performance.now();
    const closed = bridge.close();
    expect((await loading).error).toMatchObject({ code: "SHIM_SHUTTING_DOWN" });
    expect(performance.now() - started).toBeLessThan(500);
    await closed;
    expect(performance.now() - started).toBeLessThan(30_000);
    expect(isAlive(bridge.pid)).toBe(false);
    await model.close();
  });
});

describe("the folder of a socket whose shim and parent were killed", () => {
  const hoursAgo = (hours: number): Date => new Date(Date.now() - hours * 3_600_000);

  /** Whether a folder with something in it is there after the next start. */
  async function survives(fill: (folder: string) => Promise<unknown>, changed: Date = hoursAgo(1)): Promise<boolean> {
    const folder = await mkdtemp(join(tmpdir(), "prunebridge-1-"));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    await fill(folder);
    await utimes(folder, changed, changed);
    const own = await makeSocketFolder();
    onTestFinished(() => rm(own, { recursive: true }));
    return existsSync(folder);
  }

  // Node removes a socket that it closes; a process that is killed does not.
  const killedListener = (folder: string): Promise<unknown> => {
    const socket = JSON.stringify(join(folder, SOCKET));
    const code = `require("net").createServer().listen(${socket}, () => process.kill(process.pid, "SIGKILL"))`;
    return execa(process.execPath, ["-e", code], { reject: false });
  };

  const unreadToken = (folder: string): Promise<void> => writeFile(join(folder, TOKEN_FILE), "secret");

  it("is removed by the next start", async () => {
    expect(await survives(killedListener)).toBe(false);
    expect(await survives(async () => {}, hoursAgo(48))).toBe(false);
    expect(await survives(unreadToken, hoursAgo(48))).toBe(false);
    expect(await survives(async (folder) => [await killedListener(folder), await unreadToken(folder)])).toBe(false);
  });

  it("is left alone where it is new, where somebody listens or may yet, and where it holds something else", async () => {
    expect(await survives(async () => {})).toBe(true);
    expect(await survives(unreadToken)).toBe(true);
    expect(await survives(killedListener, new Date())).toBe(true);
    const server = createServer();
    expect(await survives(async (folder) => once(server.listen(join(folder, SOCKET)), "listening"))).toBe(true);
    server.close();
    expect(await survives((folder) => writeFile(join(folder, "mine"), ""))).toBe(true);
    expect(await survives((folder) => writeFile(join(folder, SOCKET), ""))).toBe(true);
  });
});

describe("a shim of another age", () => {
  it("is told by its versions, and ended", async () => {
    const { error, ms } = await failureOf(Bridge.spawn(planted("another_age")));
    expect(error).toMatchObject({ code: "PROTOCOL_MISMATCH", detail: expect.stringMatching(/protocol 1 to 1,.* speaks 90 to 91/) });
    expect(ms).toBeLessThan(2 * BOUND_MS);
  });
});
