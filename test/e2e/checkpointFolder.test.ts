import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, negativeLoss, type PruneConfig, prune, python, type RunnableModel, type ScoreFunc, textBatches } from "../../src/index.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { TINY_LLAMA, writeCheckpoint, writeTokens } from "../fixtures/checkpoints.js";
import { byLoss, FINE, makePlace, type Place, pruneOnce } from "../fixtures/pruneOnce.js";

const BOUNDS = { params: "85%" };

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_PYTHON);
});
afterAll(() => bridge?.close());

describe("a checkpoint folder", () => {
  it("lets another constraint do without calibration and data, and scores no candidate twice", async () => {
    const { parent, checkpoint } = await makePlace();
    const first = await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint, scoreFunc: byLoss, topK: 100 });
    const all = first.stateDict.search?.candidates ?? [];
    expect(first.judged).toBe(all.length);
    const second = await pruneOnce(
      bridge,
      parent,
      { checkpoint, scoreFunc: byLoss, topK: 2 },
      { constraints: { params: "75%", flops: "99.9%" } },
    );
    expect([second.judged, second.phases]).toEqual([0, ["scoring"]]);
    for (const { exportConfig, score } of second.stateDict.search?.candidates ?? [])
      expect(score).toBe(all.find((other) => JSON.stringify(other.exportConfig) === JSON.stringify(exportConfig))?.score);
    const sizes = await pruneOnce(bridge, parent, { checkpoint }, { constraints: { export_config: { ffn_hidden_size: 16 } } });
    expect(sizes.phases).toEqual([]);
    expect(sizes.stateDict.history.map(({ constraints }) => constraints)).toEqual([
      BOUNDS,
      { params: "75%", flops: "99.9%" },
      { export_config: { ffn_hidden_size: 16 } },
    ]);
    expect((await readdir(checkpoint)).sort()).toEqual(["plan.json", "scores.safetensors", "search.json"]);
  });

  it("goes on behind the last candidate that was scored", async () => {
    const { parent, checkpoint } = await makePlace();
    const config = { dataLoader: BATCHES, checkpoint, topK: 3 };
    let left = 2;
    const scoreFunc = Object.assign((view: RunnableModel) => (left-- > 0 ? byLoss(view) : Promise.reject(new Error("killed"))), {
      identify: async () => String(byLoss),
    });
    await expect(pruneOnce(bridge, parent, { ...config, scoreFunc })).rejects.toThrow("killed");
    const resumed = await pruneOnce(bridge, parent, { ...config, scoreFunc: byLoss });
    expect([resumed.judged, resumed.phases.includes("collecting")]).toEqual([1, false]);
    const undisturbed = await pruneOnce(bridge, parent, { ...config, checkpoint: `${checkpoint}-2`, scoreFunc: byLoss });
    const { timings: _, ...expected } = undisturbed.stateDict;
    expect(resumed.stateDict).toMatchObject(expected);
  });

  it.each<[string, ScoreFunc]>([
    ["while a candidate is judged", byLoss],
    ["while its scoreFunc hangs", () => new Promise(() => {})],
  ])("goes on with a search that was cancelled %s", async (_when, judge) => {
    const { parent, checkpoint } = await makePlace();
    const cancel = new AbortController();
    const scoreFunc: ScoreFunc = async (view) => {
      cancel.abort();
      return judge(view);
    };
    await using model = await bridge.open(parent);
    const work = prune(model, FINE, BOUNDS, null, { dataLoader: BATCHES, checkpoint, scoreFunc, signal: cancel.signal });
    await expect(work).rejects.toMatchObject({ code: "CANCELLED" });
    expect(model.plan).toBeUndefined();
    expect((await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint, scoreFunc: byLoss, topK: 1 })).phases).not.toContain(
      "collecting",
    );
  });

  it("judges again where the function is another one", async () => {
    const { parent, checkpoint } = await makePlace();
    const config = { dataLoader: BATCHES, checkpoint, topK: 2 };
    await pruneOnce(bridge, parent, { ...config, scoreFunc: byLoss });
    const other = await pruneOnce(bridge, parent, { ...config, scoreFunc: async (view) => -2 * (await view.loss(BATCHES)) });
    expect(other.judged).toBe(2);
    const heldOut = await writeTokens(join(parent, "held-out.safetensors"), [1, 2, 12], (i) => i);
    await using model = await bridge.open(parent);
    const { stateDict } = await prune(model, FINE, BOUNDS, null, { ...config, scoreFunc: negativeLoss(heldOut, model) });
    expect(stateDict.best?.score).toBeCloseTo(-(await model.loss(textBatches(heldOut, model))), 5);
  });

  it("of a forward loop is used for the same loop, and for no other", async () => {
    const { parent, checkpoint } = await makePlace();
    const forwardLoop: PruneConfig["forwardLoop"] = (model) => Promise.all(BATCHES.map((batch) => model.forward(batch)));
    const first = await pruneOnce(bridge, parent, { forwardLoop, checkpoint });
    expect(first.phases).toContain("collecting");
    const again = await pruneOnce(bridge, parent, { forwardLoop, checkpoint });
    expect(again.phases).toEqual([]);
    expect(again.stateDict.calibration).toEqual(first.stateDict.calibration);
    for (const other of [{ forwardLoop: python("calibration:forward_loop") }, { dataLoader: BATCHES }])
      await expect(pruneOnce(bridge, parent, { ...other, checkpoint })).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH" });
  });

  it("of a bound forward loop, whose text tells nothing, is used for no other", async () => {
    const { parent, checkpoint } = await makePlace();
    const over = (batches: typeof BATCHES): PruneConfig["forwardLoop"] => {
      const loop: PruneConfig["forwardLoop"] = (model) => Promise.all(batches.map((batch) => model.forward(batch)));
      return (loop as () => unknown).bind(undefined);
    };
    await pruneOnce(bridge, parent, { forwardLoop: over(BATCHES), checkpoint });
    const other = pruneOnce(bridge, parent, { forwardLoop: over(BATCHES.slice(1)), checkpoint });
    await expect(other).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH" });
  });

  it("is used by whoever opens the model in the same dtype, however that is said", async () => {
    const { parent, checkpoint } = await makePlace();
    await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint });
    const spelled = await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint }, { open: { dtype: "float32" } });
    expect(spelled.phases).toEqual([]);
  });

  const refused: [string, string, (folder: Place) => Promise<unknown>][] = [
    [
      "of a model with other weights",
      "BAD_SCORES|CHECKPOINT_MISMATCH",
      async ({ parent, checkpoint }) =>
        pruneOnce(bridge, await writeCheckpoint(`${parent}-2`, TINY_LLAMA, { seed: 2 }), { dataLoader: BATCHES, checkpoint }),
    ],
    [
      "of other data",
      "CHECKPOINT_MISMATCH",
      ({ parent, checkpoint }) => pruneOnce(bridge, parent, { dataLoader: [...BATCHES].reverse(), checkpoint }),
    ],
    [
      "of fewer batches",
      "CHECKPOINT_MISMATCH",
      ({ parent, checkpoint }) => pruneOnce(bridge, parent, { dataLoader: [...BATCHES, ...BATCHES], checkpoint }),
    ],
    [
      "of more batches",
      "CHECKPOINT_MISMATCH",
      ({ parent, checkpoint }) => pruneOnce(bridge, parent, { dataLoader: BATCHES, maxIterDataLoader: 4, checkpoint }),
    ],
    [
      "of other steps",
      "CHECKPOINT_MISMATCH",
      ({ parent, checkpoint }) => pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint, checkpointEvery: 1 }),
    ],
    [
      "of another dtype",
      "CHECKPOINT_MISMATCH",
      ({ parent, checkpoint }) => pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint }, { open: { dtype: "bfloat16" } }),
    ],
  ];
  it("is refused before any forward pass where it is of something else", async () => {
    const { parent, checkpoint } = await makePlace();
    await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint });
    for (const [what, code, work] of refused) {
      await expect(work({ parent, checkpoint }), what).rejects.toMatchObject({
        code: expect.stringMatching(code),
        hint: expect.stringMatching(/./),
      });
    }
    expect((await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint })).phases).toEqual([]);
  });
});

describe("a checkpoint folder that is broken", () => {
  it.each([
    ["scores.safetensors", "BAD_SAFETENSORS"],
    ["search.json", "CHECKPOINT_MISMATCH"],
  ])("by half of %s is refused before any forward pass", async (name, code) => {
    const { parent, checkpoint } = await makePlace();
    await pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint });
    const whole = await readFile(join(checkpoint, name));
    await writeFile(join(checkpoint, name), whole.subarray(0, whole.length / 2));
    await expect(pruneOnce(bridge, parent, { dataLoader: BATCHES, checkpoint })).rejects.toMatchObject({ code });
  });

  it("by being a file is refused before anything is loaded", async () => {
    const { parent, checkpoint } = await makePlace();
    await writeFile(checkpoint, "");
    await using model = await bridge.open(parent);
    const told: string[] = [];
    const config = { dataLoader: BATCHES, checkpoint, onProgress: ({ phase }: { phase: string }) => told.push(phase) };
    await expect(prune(model, FINE, BOUNDS, null, config)).rejects.toMatchObject({ code: "PATH_DENIED" });
    expect([told, model.plan]).toEqual([[], undefined]);
  });
});
