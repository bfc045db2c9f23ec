import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, type Model, type PlanFile, prune, python } from "../../src/index.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn({ ...WITH_PYTHON, allowPython: ["faults"] });
});
afterAll(() => bridge?.close());

/** A parent's folder, a plan for it, and the loss of the child. */
async function planned(): Promise<{ folder: string; plan: PlanFile; loss: number }> {
  const folder = await writeCheckpoint(await temporaryFolder());
  await using model = await bridge.open(folder);
  const constraints = { export_config: { ffn_hidden_size: 24, num_layers: 2 } };
  const { stateDict } = await prune(model, "mcore_gpt_minitron", constraints, null, { dataLoader: BATCHES });
  return { folder, plan: stateDict.plan, loss: await model.loss(BATCHES) };
}

const openModels = (model: Model): Promise<number> => model.score(python("faults:open_models"));

describe("a cut that fails", () => {
  it("halfway, for want of memory, is made of the parent again by the next use", async () => {
    const { folder, plan, loss } = await planned();
    await using model = await bridge.open(folder);
    await model.score(python("faults:out_of_memory_in_the_next_cut"));
    model.prune(plan);
    await expect(model.loss(BATCHES)).rejects.toMatchObject({ code: "GPU_OOM" });
    expect(await model.loss(BATCHES)).toBe(loss);
    expect(await openModels(model)).toBe(1);
  });

  it("before it begins leaves no model beside the one that the next use loads", async () => {
    const { folder, plan, loss } = await planned();
    await using model = await bridge.open(folder);
    await model.load();
    model.prune(plan);
    await expect(model.loss(BATCHES, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await model.loss(BATCHES)).toBe(loss);
    expect(await openModels(model)).toBe(1);
  });

  it("because nothing may be started leaves the parent to the next use", async () => {
    const { folder, plan, loss } = await planned();
    await using model = await bridge.open(folder);
    await using other = await bridge.open(folder);
    await model.load();
    model.prune(plan);
    const reading = async function* () {
      await model.loss(BATCHES);
      yield BATCHES[0] ?? [];
    };
    await expect(other.loss(reading())).rejects.toMatchObject({ code: "BAD_OPTION" });
    expect(await model.loss(BATCHES)).toBe(loss);
    expect(await openModels(model)).toBe(2);
  });
});
