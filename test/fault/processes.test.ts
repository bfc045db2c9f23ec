import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Batch, Bridge, prune, tokenBatch } from "../../src/index.js";
import { TINY_LLAMA, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { failureOf, isAlive } from "../fixtures/failures.js";

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures");
const BOUND_MS = 5_000;
const TARGET = { export_config: { ffn_hidden_size: 16 } };

async function waitUntilGone(pid: number): Promise<number> {
  const started = performance.now();
  while (isAlive(pid) && performance.now() - started < 2 * BOUND_MS) await sleep(20);
  return performance.now() - started;
}

const batch = (): Batch =>
  tokenBatch(
    BigInt64Array.from({ length: 16 }, (_, i) => BigInt(i)),
    2,
  );

/** Batches without end, telling when the n-th is drawn. */
function endless(onBatch: (n: number) => void): AsyncIterable<Batch> {
  return (async function* () {
    for (let n = 1; ; n++) {
      onBatch(n);
      await sleep(1);
      yield batch();
    }
  })();
}

describe("a parent that is killed", () => {
  it("leaves no shim", async () => {
    const parent = execa(process.execPath, ["--import", "tsx", join(FIXTURES, "spawnAndWait.ts")], { reject: false, buffer: false });
    const { value } = await createInterface({ input: parent.stdout })[Symbol.asyncIterator]().next();
    const pid = Number(value);
    expect(isAlive(pid)).toBe(true);
    parent.kill("SIGKILL");
    await parent;
    expect(await waitUntilGone(pid)).toBeLessThan(BOUND_MS);
  });
});

describe("a shim that is killed", () => {
  it("while idle gives the next call a clear error with the end of its log", async () => {
    await using bridge = await Bridge.spawn();
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    await model.load();
    process.kill(bridge.pid, "SIGKILL");
    const { error, ms } = await failureOf(model.loss([batch()]));
    expect(error).toMatchObject({ name: "PruneError", code: "SHIM_DIED" });
    expect(error.detail).toMatch(/SIGKILL/);
    expect(error.detail).toMatch(/the end of its log/);
    expect(ms).toBeLessThan(BOUND_MS);
  });

  it("while scoring gives the caller the error at once", async () => {
    await using bridge = await Bridge.spawn();
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    let killed = 0;
    const dataLoader = endless((n) => {
      if (n !== 20) return;
      killed = performance.now();
      process.kill(bridge.pid, "SIGKILL");
    });
    const { error } = await failureOf(prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader }));
    expect(error.code).toBe("SHIM_DIED");
    expect(performance.now() - killed).toBeLessThan(BOUND_MS);
  });
});

describe("a shim that is killed while it holds a feed back", () => {
  it("gives the caller the same error", async () => {
    await using bridge = await Bridge.spawn();
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    // Attention over sequences this long keeps the shim behind, so that the sender waits for room.
    const long = tokenBatch(
      BigInt64Array.from({ length: 8 * 4096 }, (_, i) => BigInt(i % 50)),
      8,
    );
    const dataLoader = (async function* () {
      for (let n = 1; ; n++) {
        if (n === 6) setTimeout(() => process.kill(bridge.pid, "SIGKILL"), 300);
        yield long;
      }
    })();
    const { error } = await failureOf(prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader }));
    expect(error).toMatchObject({ name: "PruneError", code: "SHIM_DIED" });
  });
});

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

describe("a caller that changes its mind", () => {
  it("cancels scoring, and the bridge goes on", async () => {
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    const cancel = new AbortController();
    const dataLoader = endless((n) => n === 10 && cancel.abort());
    const { error, ms } = await failureOf(prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader, signal: cancel.signal }));
    expect(error.code).toBe("CANCELLED");
    expect(ms).toBeLessThan(30_000);
    expect(await model.loss([batch()])).toBeGreaterThan(0);
  });

  it("sees its data loader's own error", async () => {
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    const broken = new Error("the dataset server is down");
    const dataLoader = endless((n) => {
      if (n === 3) throw broken;
    });
    expect((await failureOf(prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader }))).error).toBe(broken);
    expect(await model.loss([batch()])).toBeGreaterThan(0);
  });

  it("closes the bridge: process and socket are gone", async () => {
    const sockets = async (): Promise<string[]> =>
      (await readdir(tmpdir())).filter((name) => name.startsWith(`prunebridge-${process.pid}-`));
    const before = await sockets();
    const closing = await Bridge.spawn();
    expect(await sockets()).toHaveLength(before.length + 1);
    await Promise.all([closing.close(), closing.close()]);
    expect(isAlive(closing.pid)).toBe(false);
    expect(await sockets()).toEqual(before);
  });
});

describe("calibration in the shim", () => {
  it("names the batch whose token ids have no embedding", async () => {
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder(), TINY_LLAMA));
    const bad = tokenBatch(BigInt64Array.from([1n, 50n]), 1);
    const { error } = await failureOf(prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader: [batch(), bad] }));
    expect(error).toMatchObject({ code: "BAD_DATA", detail: expect.stringMatching(/50/) });
  });

  it("refuses no batches at all", async () => {
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    expect((await failureOf(prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader: [] }))).error.code).toBe("BAD_DATA");
  });

  it("draws no more batches than asked for", async () => {
    const model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    let drawn = 0;
    const dataLoader = endless((n) => {
      drawn = n;
    });
    const { scores } = await prune(model, "mcore_gpt_minitron", TARGET, null, { dataLoader, maxIterDataLoader: 3 });
    expect(drawn).toBe(3);
    expect(scores?.provenance).toEqual({ batches: "3", samples: "6", tokens: "48" });
  });
});

describe("a child that transformers' config class refuses", () => {
  it("runs all the same, in place and from storage", async () => {
    const dir = await temporaryFolder();
    const model = await bridge.open(await writeCheckpoint(join(dir, "parent")), { dtype: "bfloat16" });
    // 20 is no multiple of the 6 heads.
    const { subnet } = await prune(model, "mcore_gpt_minitron", { export_config: { hidden_size: 20 } }, null, { dataLoader: [batch()] });
    await subnet.save(join(dir, "child"));
    const inPlace = await subnet.loss([batch()]);
    const child = await bridge.open(join(dir, "child"), { dtype: "bfloat16" });
    expect(await child.loss([batch()])).toBe(inPlace);
  });
});
