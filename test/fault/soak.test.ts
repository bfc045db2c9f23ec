import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, type Model, python } from "../../src/index.js";
import { ShimProcess } from "../../src/shim/process.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { sliceIn } from "../fixtures/planted.js";
import { modelOver, openSession } from "../fixtures/sessions.js";

const SOAK = process.env["PRUNEBRIDGE_SOAK"] === "1";
const SOAK_MS = 30 * 60_000;
const OPERATIONS = SOAK ? 2_000 : 160;
const CONNECTIONS = SOAK ? 200 : 20;
const SPAWNS = SOAK ? 20 : 2;
const AT_ONCE = 8;

/** By how much a side may have grown after its warm-up: the answers of a few dozen operations, or some kibibytes of each in the whole soak. */
const GROWTH = { mib: 8, descriptors: 0, threads: AT_ONCE };

/** A batch whose logits are 200 kB. */
const LONG = Array.from({ length: 16 }, () => Array.from({ length: 60 }, (_, position) => position % 50));

interface Usage {
  readonly mib: number;
  readonly descriptors: number;
  readonly threads: number;
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** What a process holds: resident memory, but of this one what is in use after a collection, since the rest is the collector's to keep. */
async function usageOf(pid: number): Promise<Usage> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const numberOf = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1]);
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  const mib = pid === process.pid ? (heapUsed + external) / 2 ** 20 : numberOf("VmRSS") / 1024;
  return { mib, descriptors: (await readdir(`/proc/${pid}/fd`)).length, threads: numberOf("Threads") };
}

/** Does something again and again, and compares what both sides hold with what they held after the first quarter. */
async function expectStable(pids: readonly number[], count: number, once: (n: number) => Promise<unknown>): Promise<void> {
  const usages = async (): Promise<Usage[]> => {
    await sleep(500);
    return Promise.all(pids.map(usageOf));
  };
  const repeat = async (from: number, to: number): Promise<void> => {
    for (let n = from; n < to; n++) await once(n);
  };
  const warm = Math.ceil(count / 4);
  await repeat(0, warm);
  const before = await usages();
  await repeat(warm, count);
  let after = await usages();
  // Connections are closed by both ends, one after the other: what is only late is gone in a while, and what leaks is not.
  for (let tries = 1; tries < 10 && after.some(({ descriptors }, index) => descriptors > (before[index]?.descriptors ?? 0)); tries++)
    after = await usages();
  for (const [index, { mib, descriptors, threads }] of after.entries()) {
    const base = before[index] as Usage; // as many as pids
    const grown = { mib: mib - base.mib, descriptors: descriptors - base.descriptors, threads: threads - base.threads };
    for (const [what, most] of Object.entries(GROWTH)) {
      const growth = grown[what as keyof Usage];
      expect(
        growth,
        `${what} of ${pids[index] === process.pid ? "this side" : "the shim"}: ${JSON.stringify({ base, grown })}`,
      ).toBeLessThanOrEqual(most);
    }
  }
}

let shim: ShimProcess;
beforeAll(async () => {
  shim = await ShimProcess.start({ ...WITH_PYTHON, allowPython: ["calibration", "faults"] });
});
afterAll(() => shim?.stop());

describe.skipIf(process.platform !== "linux")("what both sides hold", () => {
  it(
    "stays the same over short operations that succeed, fail and are cancelled",
    async () => {
      const session = await openSession(shim);
      const model = await modelOver(session, await writeCheckpoint(await temporaryFolder()));
      const { signal } = new AbortController();
      const [batch = []] = BATCHES;
      const kinds: ((model: Model) => Promise<unknown>)[] = [
        (m) => m.loss(BATCHES, { signal }),
        (m) => m.forward(LONG, { signal }),
        (m) => m.collect([], async (looped) => void (await looped.forward(batch, { returns: "loss", signal })), { signal }),
        (m) => m.score(python("faults:count_calls"), { signal }),
        (m) => m.score(python("calibration:fail")).catch(() => {}),
        (m) => m.loss([[[50]]]).catch(() => {}),
        (m) => m.loss(BATCHES, { signal: AbortSignal.timeout(1) }).catch(() => {}),
        (m) => m.tokenize(["a"]).catch(() => {}),
      ];
      let ran = 0;
      const round = (n: number): Promise<unknown> =>
        Promise.all(
          Array.from({ length: AT_ONCE }, async (_, i) => {
            await kinds[(n + i) % kinds.length]?.(model);
            ran += 1;
          }),
        );
      await expectStable([process.pid, shim.pid], OPERATIONS / AT_ONCE, round);
      expect(ran).toBe(OPERATIONS);
      await model.close();
      session.close();
    },
    SOAK_MS,
  );

  it(
    "stays the same over connections",
    async () => {
      const folder = await writeCheckpoint(await temporaryFolder());
      const connectOnce = async (): Promise<void> => {
        const session = await openSession(shim);
        const model = await modelOver(session, folder);
        await model.loss(BATCHES);
        await model.close();
        session.close();
      };
      await expectStable([process.pid, shim.pid], CONNECTIONS, connectOnce);
    },
    SOAK_MS,
  );

  it(
    "stays the same over bridges",
    async () => {
      const spawnOnce = async (): Promise<void> => {
        await using bridge = await Bridge.spawn();
        await sliceIn(await temporaryFolder(), bridge);
      };
      await expectStable([process.pid], SPAWNS, spawnOnce);
      expect((await readdir(tmpdir())).filter((name) => name.startsWith(`prunebridge-${process.pid}-`))).toHaveLength(1);
    },
    SOAK_MS,
  );
});
