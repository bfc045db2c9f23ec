import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, type Model, type ModelView, outline, type PruneError, plan, prune } from "../../src/index.js";
import { BATCHES } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

const BOUND_MS = 5_000;
const TARGET = { ffn_hidden_size: 24, hidden_size: 18 };
const SEARCH = [["mcore_gpt_minitron", { ffn_hidden_size_divisor: 8, hidden_size_divisor: 6, num_layers_divisor: 1 }]] as const;

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

const open = async (): Promise<Model> => bridge.open(await writeCheckpoint(await temporaryFolder()));
const viewOf = (model: Model): Promise<ModelView> => model.view(plan(model.parent, TARGET, "position"));
const failureOf = (work: Promise<unknown>): Promise<PruneError> =>
  work.then(
    () => Promise.reject(new Error("it did not fail")),
    (error) => error,
  );

/** A loader that gives one batch and then thinks for ever. */
async function* hanging(onThinking: () => void): AsyncGenerator<(typeof BATCHES)[number], void, void> {
  yield BATCHES[0] ?? [];
  onThinking();
  await new Promise(() => {});
}

describe("a view of a model", () => {
  it("computes what the pruned model computes, and leaves the model as it is", async () => {
    await using model = await open();
    const before = (await model.forward(BATCHES[0] ?? [])).data;
    const planned = plan(model.parent, TARGET, "position");
    let seen: Uint8Array;
    {
      await using view = await model.view(planned);
      expect(view.hyperparameters).toEqual(outline(model.parent, TARGET).child.hyperparameters);
      seen = (await view.forward(BATCHES[0] ?? [])).data;
    }
    expect((await model.forward(BATCHES[0] ?? [])).data).toEqual(before);
    model.prune(planned);
    expect((await model.forward(BATCHES[0] ?? [])).data).toEqual(seen);
  });

  it("refuses to run once it is closed, and is closed as often as one likes", async () => {
    await using model = await open();
    const view = await viewOf(model);
    await Promise.all([view.close(), view.close()]);
    await view.close();
    expect(await failureOf(view.loss(BATCHES))).toMatchObject({ code: "BAD_OPTION", detail: "this view of a model was closed" });
  });

  it("keeps its model from being pruned until it is closed", async () => {
    await using model = await open();
    const view = await viewOf(model);
    expect(() => model.prune(view.plan)).toThrow(/BAD_OPTION.*1 views? of this model/);
    await view.close();
    model.prune(view.plan);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });

  it("ends what still runs on it when it is closed", async () => {
    await using model = await open();
    const view = await viewOf(model);
    let failed: Promise<PruneError> | undefined;
    await new Promise<void>((thinking) => {
      failed = failureOf(view.loss(hanging(thinking)));
    });
    await view.close();
    expect((await failed)?.code).toBe("CANCELLED");
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });
});

describe("a search", () => {
  const searching = (
    model: Model,
    scoreFunc: (candidate: { loss(batches: unknown): Promise<number> }) => Promise<number>,
    signal?: AbortSignal,
  ) => prune(model, SEARCH, { params: "90%" }, null, { dataLoader: BATCHES, scoreFunc: scoreFunc as never, topK: 2, signal });

  it("answers a cancel while its score function runs a candidate, and leaves the model to others", async () => {
    await using model = await open();
    const cancel = new AbortController();
    const work = failureOf(searching(model, (candidate) => candidate.loss(hanging(() => cancel.abort())), cancel.signal));
    const began = performance.now();
    expect((await work).code).toBe("CANCELLED");
    expect(performance.now() - began).toBeLessThan(BOUND_MS);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });

  it("whose shim dies while a candidate is judged says so", async () => {
    await using mortal = await Bridge.spawn();
    const work = async (): Promise<unknown> => {
      await using model = await mortal.open(await writeCheckpoint(await temporaryFolder()));
      return await searching(model, (candidate) => {
        process.kill(mortal.pid, "SIGKILL");
        return candidate.loss(BATCHES);
      });
    };
    expect((await failureOf(work())).code).toBe("SHIM_DIED");
  });
});
