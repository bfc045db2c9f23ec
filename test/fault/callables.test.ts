import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { Bridge, type ForwardLoop, type LoopModel, type Model, type PruneError, prune, python } from "../../src/index.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

const BOUND_MS = 5_000;
const HANGS: ForwardLoop = () => new Promise(() => {});

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_PYTHON);
});
afterAll(() => bridge?.close());

const open = async (): Promise<Model> => bridge.open(await writeCheckpoint(await temporaryFolder()));
const [batch = []] = BATCHES;

async function failureOf(work: Promise<unknown>): Promise<PruneError> {
  return work.then(
    () => {
      throw new Error("it succeeded");
    },
    (reason: PruneError) => reason,
  );
}

describe("a forward loop", () => {
  it.each<[string, (model: LoopModel) => Promise<unknown>]>([
    ["before its first batch", async () => {}],
    ["after some batches", (model) => model.forward(batch)],
    ["while batches are in flight", async (model) => void Array.from({ length: 30 }, () => model.forward(batch))],
  ])("that throws %s: its own error is what the caller sees", async (_when, first) => {
    await using model = await open();
    const broken = new Error("the dataset server is down");
    const work = model.collect([], async (looped) => {
      await first(looped);
      throw broken;
    });
    expect(await failureOf(work)).toBe(broken);
    expect(await model.loss([batch])).toBeGreaterThan(0);
  });

  it("that runs no batch is refused", async () => {
    await using model = await open();
    expect(await failureOf(model.collect([], () => {}))).toMatchObject({ code: "BAD_DATA", detail: expect.stringMatching(/ran no batch/) });
  });

  it("that runs a batch that does not fit learns so, and so does the caller", async () => {
    await using model = await open();
    const seen: PruneError[] = [];
    const work = model.collect([], async (looped) => {
      void looped.forward(batch);
      seen.push(await failureOf(looped.forward([[50]], { returns: "logits" })));
      seen.push(await failureOf(looped.forward(batch)));
    });
    const expected = { code: "BAD_DATA", detail: expect.stringMatching(/token id 50 in batch 1/) };
    expect(await failureOf(work)).toMatchObject(expected);
    await sleep(0);
    expect(seen).toMatchObject([expected, expected]);
    expect(await failureOf(model.collect([], (looped) => looped.forward({})))).toMatchObject({
      code: "BAD_DATA",
      detail: expect.stringMatching(/batch 0 of the forward loop/),
    });
  });

  it("whose loss has a batch that does not fit fails by it while the next is late, and nothing fails unheard", async () => {
    const unheard: unknown[] = [];
    const hear = (reason: unknown): void => void unheard.push(reason);
    process.on("unhandledRejection", hear);
    onTestFinished(() => void process.off("unhandledRejection", hear));
    await using model = await open();
    const late = async function* () {
      yield batch;
      yield [[50]];
      await sleep(500);
      yield batch;
    };
    const expected = { code: "BAD_DATA", detail: expect.stringMatching(/token id 50 in batch 1/) };
    let lost: Promise<PruneError> | undefined;
    const work = model.collect([], async (looped) => {
      const loss = looped.loss(late());
      lost = failureOf(loss);
      await loss;
    });
    expect(await failureOf(work)).toMatchObject(expected);
    expect(await lost).toMatchObject(expected);
    expect(unheard).toEqual([]);
  });

  it("that has ended leaves a model that refuses", async () => {
    await using model = await open();
    let kept: LoopModel | undefined;
    await model.collect([], async (looped) => {
      kept = looped;
      await looped.forward(batch);
    });
    expect(await failureOf((kept as LoopModel).forward(batch))).toMatchObject({
      code: "BAD_OPTION",
      detail: expect.stringMatching(/has ended/),
    });
  });

  it.each<[string, ForwardLoop]>([
    ["hangs before its first batch", HANGS],
    ["hangs after a batch", (model) => model.forward(batch).then(() => HANGS(model))],
    [
      "goes on for ever",
      async (model) => {
        for (;;) await model.forward(batch);
      },
    ],
  ])("that %s ends when it is cancelled, and the bridge goes on", async (_how, loop) => {
    await using model = await open();
    await model.load();
    const started = performance.now();
    const error = await failureOf(model.collect([], loop, { signal: AbortSignal.timeout(300) }));
    expect(error.code).toBe("CANCELLED");
    expect(performance.now() - started).toBeLessThan(BOUND_MS);
    expect(await model.loss([batch])).toBeGreaterThan(0);
  });

  it.each<[string, ForwardLoop]>([
    ["hangs", HANGS],
    [
      "waits for an answer",
      async (model) => {
        for (;;) await model.forward(batch, { returns: "logits" });
      },
    ],
    [
      "waits for room",
      async (model) => {
        for (;;) await model.forward(batch);
      },
    ],
  ])("whose shim is killed while it %s fails by that death at once", async (_how, loop) => {
    await using mortal = await Bridge.spawn();
    const model = await mortal.open(await writeCheckpoint(await temporaryFolder()));
    await model.load();
    let killed = 0;
    const work = model.collect([], (looped) => {
      setTimeout(() => {
        killed = performance.now();
        process.kill(mortal.pid, "SIGKILL");
      }, 200);
      return loop(looped);
    });
    expect((await failureOf(work)).code).toBe("SHIM_DIED");
    expect(performance.now() - killed).toBeLessThan(BOUND_MS);
  });
});

describe("a Python function", () => {
  it("that was not allowed is refused before anything is loaded", async () => {
    await using model = await open();
    for (const work of [
      model.score(python("os:system")),
      model.collect([], { forwardLoop: python("os:system") }),
      model.collect([], { dataLoader: python("calibration:batches"), collectFunc: python("os:system") }),
      prune(model, "mcore_gpt_minitron", { params: "90%" }, null, { dataLoader: BATCHES, scoreFunc: python("os:system") }),
    ]) {
      expect(await failureOf(work)).toMatchObject({ code: "PYTHON_DENIED", detail: expect.stringMatching(/os:system is not allowed/) });
    }
  });

  it.each([
    ["raises", "calibration:fail", /calibration:fail failed: RuntimeError: the labels are gone \(.*calibration.py, line \d+, in fail\)/],
    ["is not there", "calibration:scores", /there is no calibration:scores/],
    ["gives no number", "calibration:nan", /calibration:nan gave nan/],
  ])("that %s fails by its name", async (_how, name, says) => {
    await using model = await open();
    expect(await failureOf(model.score(python(name)))).toMatchObject({ code: "PYTHON_FAILED", detail: expect.stringMatching(says) });
    expect(await model.loss([batch])).toBeGreaterThan(0);
  });

  it("that goes on for ever ends when it is cancelled", async () => {
    await using model = await open();
    await model.load();
    const work = model.collect([], { forwardLoop: python("calibration:slow_loop") }, { signal: AbortSignal.timeout(300) });
    expect((await failureOf(work)).code).toBe("CANCELLED");
    expect(await model.loss([batch])).toBeGreaterThan(0);
  });

  it("cannot be allowed by what is no name", async () => {
    expect(await failureOf(Bridge.spawn({ allowPython: ["a/b"] }))).toMatchObject({ code: "BAD_OPTION" });
  });
});
