// Launched jobs that lose a rank, or their parent: what the caller sees, and that nothing is left.
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, score } from "../../src/index.js";
import { failureOf, isAlive } from "../fixtures/failures.js";
import { endlessBatches, ON_CPU, writeMegatronCheckpoint } from "../fixtures/megatronJobs.js";

const LOST_MS = 12_000;
// What a busy machine adds.
const GRACE_MS = 5_000;
// torchrun gives a rank that is stopped 30 s, and then kills it.
const END_MS = 40_000;
const LAUNCH = fileURLToPath(new URL("../fixtures/launchAndHold.ts", import.meta.url));

let folder: string;
let checkpoint: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  checkpoint = await writeMegatronCheckpoint(join(folder, "checkpoint"), "llama-gqa");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The process of each rank that a process started, by rank. */
async function ranksOf(launcher: number): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [stat, environ] = await Promise.all(
        ["stat", "environ"].map((file) => readFile(join("/proc", pid, file), "utf8").catch(() => "")),
      );
      const parent = Number(stat?.slice(stat.lastIndexOf(")")).split(" ")[2]);
      const rank = environ?.split("\0").find((entry) => entry.startsWith("RANK="));
      return parent === launcher && rank ? [[Number(rank.slice("RANK=".length)), Number(pid)] as const] : [];
    }),
  );
  return found
    .flat()
    .sort(([a], [b]) => a - b)
    .map(([, pid]) => pid);
}

async function expectEnded(pids: readonly number[], within: number): Promise<void> {
  const until = performance.now() + within;
  while (pids.some(isAlive) && performance.now() < until) await sleep(50);
  expect(pids.filter(isAlive)).toEqual([]);
}

// Two jobs at a time, which mostly wait.
describe.concurrent("a launched job that loses a rank while it is scored", () => {
  it.for(["SIGKILL", "SIGSTOP"] as const)(
    "by %s tells which, and all others end",
    { timeout: 180_000 },
    async (signal, { onTestFinished }) => {
      const options = { checkpoint, nprocPerNode: 2, tensorModelParallelSize: 2, env: ON_CPU, timeouts: { lostRank: LOST_MS } };
      const bridge = await Bridge.launch(options);
      onTestFinished(() => bridge.close());
      const ranks = await ranksOf(bridge.pid);
      expect(ranks).toHaveLength(2);
      const model = await bridge.attachedModel();
      let struck = 0;
      const strike = (): void => {
        struck = performance.now();
        process.kill(ranks[1] ?? 0, signal);
      };
      const { error } = await failureOf(score(model, model.parent, endlessBatches("llama-gqa", strike)));
      expect(performance.now() - struck).toBeLessThan(LOST_MS + GRACE_MS);
      expect(error).toMatchObject({ code: "RANK_LOST", detail: expect.stringMatching(/rank 1\b/) });
      await expectEnded([bridge.pid, ...ranks], END_MS);
    },
  );
});

describe.concurrent("a parent that is killed", () => {
  it("leaves no rank of the job that it launched", { timeout: 120_000 }, async () => {
    const parent = execa(process.execPath, ["--import", "tsx", LAUNCH, checkpoint, JSON.stringify(ON_CPU)], {
      reject: false,
      buffer: false,
      stderr: "inherit",
    });
    const { value } = await createInterface({ input: parent.stdout })[Symbol.asyncIterator]().next();
    const ranks = await ranksOf(Number(value));
    expect(ranks).toHaveLength(2);
    parent.kill("SIGKILL");
    await parent;
    await expectEnded([Number(value), ...ranks], END_MS);
  });

  it("leaves none either where what started the ranks is killed with it", { timeout: 120_000 }, async () => {
    const bridge = await Bridge.launch({ checkpoint, nprocPerNode: 2, tensorModelParallelSize: 2, env: ON_CPU });
    const ranks = await ranksOf(bridge.pid);
    process.kill(bridge.pid, "SIGKILL");
    await expectEnded([bridge.pid, ...ranks], GRACE_MS);
    const { error } = await failureOf(bridge.attachedModel());
    expect(error).toMatchObject({ code: "SHIM_DIED", detail: expect.stringMatching(/SIGKILL/) });
    await bridge.close();
  });
});
