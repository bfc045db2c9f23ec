import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { ScoreStore } from "../../../src/checkpoint/scoreStore.js";
import {
  type Batch,
  type Parent,
  type Progress,
  readParent,
  readScoreFile,
  type ScoreFile,
  tokenBatch,
  writeScoreFile,
} from "../../../src/index.js";
import { hookPoints } from "../../../src/policy/scores.js";
import type { RunOptions } from "../../../src/progress.js";
import { calibrate } from "../../../src/pruning/calibrate.js";
import type { Batches } from "../../../src/tensor.js";
import { temporaryFolder, writeCheckpoint } from "../../fixtures/checkpoints.js";
import { TokenCollector } from "../../fixtures/collector.js";

const BATCHES = 7;
const EVERY = 3;
const SCORES = "scores.safetensors";
const PARTIAL = "scores.partial.safetensors";

const batch = (first: number): Batch =>
  tokenBatch(
    BigInt64Array.from({ length: 8 }, (_, i) => BigInt(first + i)),
    2,
  );
const numbers = (length: number): number[] => Array.from({ length }, (_, i) => i);
const batches = (length = BATCHES): Batch[] => numbers(length).map(batch);

let parent: Parent | undefined;
async function theParent(): Promise<Parent> {
  parent ??= await readParent(await writeCheckpoint(await temporaryFolder()));
  return parent;
}

async function run(folder: string, data: Batches, collector = new TokenCollector(), options: RunOptions = {}): Promise<ScoreFile> {
  const network = await theParent();
  const store = new ScoreStore(folder, network.fingerprint, { dtype: "auto" });
  return calibrate(collector, network, data, { ...options, store, checkpointEvery: EVERY });
}

/** Batches that tell whether their iterator was returned. */
function watched(draw: (n: number) => Batch | Promise<Batch> | undefined): Batches & { returned: number; drawn: number } {
  const source = {
    returned: 0,
    drawn: 0,
    [Symbol.asyncIterator]: (): AsyncIterator<Batch> => ({
      next: async () => {
        const value = await draw(source.drawn++);
        return value ? { done: false, value } : { done: true, value: undefined };
      },
      return: async () => {
        source.returned += 1;
        return { done: true, value: undefined };
      },
    }),
  };
  return source;
}

describe("calibrate", () => {
  it("runs every batch once, in steps, and adds what they measured", async () => {
    const folder = await temporaryFolder();
    const collector = new TokenCollector();
    const scores = await run(folder, batches(), collector);
    expect(collector.ran).toEqual([[0n, 1n, 2n], [3n, 4n, 5n], [6n]]);
    expect(scores.provenance).toMatchObject({ batches: "7", samples: "14", tokens: "56", dtype: "auto" });

    const hooks = hookPoints((await theParent()).architecture);
    const whole = await new TokenCollector().collect(hooks, batches());
    const channels = [...scores.accumulators].filter(([name]) => name !== "layer_scores");
    expect(channels.length).toBeGreaterThan(0);
    for (const [name, { data }] of channels) {
      for (const [i, value] of data.entries()) expect(value).toBeCloseTo(whole.accumulators.get(name)?.data[i] ?? Number.NaN, 5);
    }
    expect(await readScoreFile(join(folder, SCORES))).toEqual(scores);
    expect(await readdir(folder)).toEqual([SCORES]);
  });

  it("goes on from every batch at which it was stopped, to the same file", async () => {
    const undisturbed = await temporaryFolder();
    const expected = await run(undisturbed, batches());
    const file = await readFile(join(undisturbed, SCORES));
    for (const stopped of numbers(BATCHES + 1)) {
      const folder = await temporaryFolder();
      const dying = run(folder, batches(), new TokenCollector(stopped));
      if (stopped < BATCHES) await expect(dying).rejects.toThrow("the shim is gone");
      else await dying;
      const collector = new TokenCollector();
      expect(await run(folder, batches(), collector)).toEqual(expected);
      const stored = stopped === BATCHES ? BATCHES : EVERY * Math.floor(stopped / EVERY);
      expect(collector.ran.flat()).toEqual(numbers(BATCHES).slice(stored).map(BigInt));
      expect((await readFile(join(folder, SCORES))).equals(file)).toBe(true);
      expect(await readdir(folder)).toEqual([SCORES]);
    }
  });

  it("goes on where only the last rename is missing", async () => {
    const folder = await temporaryFolder();
    const scores = await run(folder, batches());
    await writeScoreFile(join(folder, PARTIAL), scores);
    await rm(join(folder, SCORES));
    const collector = new TokenCollector();
    expect(await run(folder, batches(), collector)).toEqual(scores);
    expect(collector.ran).toEqual([]);
    expect(await readdir(folder)).toEqual([SCORES]);
  });

  it("refuses no batches", async () => {
    await expect(run(await temporaryFolder(), [])).rejects.toMatchObject({ code: "BAD_DATA" });
  });
});

describe("a calibration with scores that are there", () => {
  const changed = batches();
  changed[1] = batch(30);
  const reshaped = batches();
  reshaped[2] = { input_ids: { ...(batch(2)["input_ids"] as Batch[string]), shape: [4, 2] } };
  const masked = batches().map((one) => ({ ...one, attention_mask: one["input_ids"] as Batch[string] }));
  const cases: [string, Batch[], RegExp][] = [
    ["another batch", changed, /other calibration data/],
    ["another shape", reshaped, /other calibration data/],
    ["another order", batches().reverse(), /other calibration data/],
    ["another argument", masked, /other calibration data/],
    ["too few batches", batches(2), /measured over \d batches, and the data loader has 2/],
    ["none", [], /measured over \d batches, and the data loader has 0/],
  ];

  it.each(cases)("refuses %s, before anything is run", async (_what, other, says) => {
    for (const [stopped, file] of [
      [BATCHES, SCORES],
      [4, PARTIAL],
    ] as const) {
      const folder = await temporaryFolder();
      await run(folder, batches(), new TokenCollector(stopped)).catch(() => {});
      const before = await readFile(join(folder, file));
      const collector = new TokenCollector();
      await expect(run(folder, other, collector)).rejects.toMatchObject({
        code: "CHECKPOINT_MISMATCH",
        detail: expect.stringMatching(new RegExp(`${file} was .*${says.source}`)),
      });
      expect(collector.ran).toEqual([]);
      expect((await readFile(join(folder, file))).equals(before)).toBe(true);
    }
  });

  it("refuses more batches than were measured, and draws one of them at most", async () => {
    const folder = await temporaryFolder();
    await run(folder, batches());
    const endless = watched(batch);
    await expect(run(folder, endless)).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH", detail: expect.stringMatching(/has more/) });
    expect(endless).toMatchObject({ drawn: BATCHES + 1, returned: 1 });
  });

  it("takes those that another tool measured as they are, without drawing a batch", async () => {
    const folder = await temporaryFolder();
    const accumulators = new Map([["layer_scores", { shape: [1], data: Float32Array.of(1) }]]);
    await writeScoreFile(join(folder, SCORES), { accumulators, fingerprint: undefined, provenance: {} });
    const source = watched(batch);
    expect((await run(folder, source)).accumulators).toEqual(accumulators);
    expect(source).toMatchObject({ drawn: 0, returned: 1 });
  });
});

describe("the source of a calibration", () => {
  it("is returned where the collector fails, and left alone where it came to its end", async () => {
    const failing = watched(batch);
    await expect(run(await temporaryFolder(), failing, new TokenCollector(2))).rejects.toThrow("the shim is gone");
    expect(failing.returned).toBe(1);
    const ending = watched((n) => (n < BATCHES ? batch(n) : undefined));
    await run(await temporaryFolder(), ending);
    expect(ending.returned).toBe(0);
  });

  it("may be a generator, whose finally is run", async () => {
    let closed = false;
    const generator = (function* () {
      try {
        for (const n of numbers(100)) yield batch(n);
      } finally {
        closed = true;
      }
    })();
    await expect(run(await temporaryFolder(), generator, new TokenCollector(4))).rejects.toThrow("the shim is gone");
    expect(closed).toBe(true);
  });

  it("that throws midway is not asked again, and leaves the steps before it to the next run", async () => {
    const folder = await temporaryFolder();
    const broken = new Error("the dataset server is down");
    const source = watched((n) => (n < 5 ? batch(n) : Promise.reject(broken)));
    await expect(run(folder, source)).rejects.toBe(broken);
    expect(source).toMatchObject({ drawn: 6, returned: 0 });
    expect((await readScoreFile(join(folder, PARTIAL))).provenance["batches"]).toBe("3");
    const collector = new TokenCollector();
    expect(await run(folder, batches(), collector)).toEqual(await run(await temporaryFolder(), batches()));
    expect(collector.ran.flat()).toEqual([3n, 4n, 5n, 6n]);
  });

  it.each([0, 1, EVERY, EVERY + 1])("that hangs before batch %i is not waited for when the caller cancels", async (hanging) => {
    const folder = await temporaryFolder();
    const cancel = new AbortController();
    onTestFinished(() => cancel.abort());
    const source = watched((n) => (n < hanging ? batch(n) : new Promise<Batch>(() => {})));
    const work = run(folder, source, new TokenCollector(), { signal: cancel.signal });
    await sleep(20);
    cancel.abort();
    await expect(work).rejects.toMatchObject({ code: "CANCELLED" });
    expect(source.returned).toBe(1);
    const collector = new TokenCollector();
    await run(folder, batches(), collector);
    expect(collector.ran.flat()).toHaveLength(BATCHES - EVERY * Math.floor(hanging / EVERY));
  });
});

describe("progress", () => {
  it("is of the whole calibration, also where a part of it is stored", async () => {
    const folder = await temporaryFolder();
    await run(folder, batches(), new TokenCollector(4)).catch(() => {});
    const told: Progress[] = [];
    await run(folder, batches(), new TokenCollector(), { onProgress: (progress) => told.push(progress) });
    expect(told.filter(({ unit }) => unit === "batches")).toMatchObject([4, 5, 6, 7].map((done) => ({ done, total: BATCHES })));
    expect(told.filter(({ unit }) => unit === "batches").at(-1)?.etaSeconds).toBe(0);
    expect(told.find(({ phase }) => phase === "loading")).toMatchObject({ done: 0, total: 0, unit: "tensors" });
  });
});
