import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, type GradnasConfig, inspect, type NamedArgs, type OpenedModel, prune, tensor, verify } from "../../src/index.js";
import { type Config, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { relativeDifference } from "../fixtures/cutting.js";
import { IMPLIED_HEADS, TINY } from "../fixtures/families.js";
import { FINE } from "../fixtures/gradients.js";
import { type Reference, spelledOut, startReference } from "../fixtures/reference.js";

const GROUPED: Config = { ...TINY.llama, num_attention_heads: 8, num_key_value_heads: 2, head_dim: 4, num_hidden_layers: 3 };
const MODELS: readonly (readonly [name: string, config: Config, loss: GradnasConfig["lossFunc"]])[] = [
  ["bertMaskedLm", IMPLIED_HEADS.bertMaskedLm, "masked_lm"],
  ["bertClassifier", IMPLIED_HEADS.bertClassifier, "sequence_classification"],
  ["gptj", IMPLIED_HEADS.gptj, "causal_lm"],
  ["llama", GROUPED, "causal_lm"],
  ["qwen3", TINY.qwen3, "causal_lm"],
];

let bridge: Bridge;
let reference: Reference;
beforeAll(async () => {
  bridge = await Bridge.spawn({ env: { OMP_NUM_THREADS: "1" } });
  reference = startReference();
});
afterAll(async () => {
  await reference?.stop();
  await bridge?.close();
});

const rows = (batch: number): number[][] =>
  [0, 1].map((row) => Array.from({ length: 6 }, (_, position) => (7 * batch + 5 * row + 3 * position) % 40));

/** Batches with the labels that a loss takes. */
function batchesFor(loss: unknown, count = 3): NamedArgs[] {
  return Array.from({ length: count }, (_, batch) => {
    const input_ids = rows(batch);
    if (loss === "masked_lm") return { input_ids, labels: rows(batch + 1) };
    if (loss === "sequence_classification") return { input_ids, labels: tensor(BigInt64Array.of(BigInt(batch % 3), 1n), [2]) };
    return { input_ids };
  });
}

async function open(config: Config): Promise<OpenedModel> {
  return bridge.open(await writeCheckpoint(join(await temporaryFolder(), "parent"), config, { most: 0.5 }));
}

describe.each(MODELS)("%s", (_name, config, lossFunc) => {
  const dataLoader = batchesFor(lossFunc);

  it("has layers of sizes of their own, live and saved", async () => {
    await using model = await open(config);
    const { subnet, stateDict } = await prune(model, [["gradnas", FINE]], { params: "75%" }, null, { lossFunc, dataLoader });
    expect(subnet).toBe(model);
    expect(stateDict.costs.child.params).toBeLessThanOrEqual(0.75 * stateDict.costs.parent.params);
    expect(new Set(stateDict.plan.layers?.map((sizes) => JSON.stringify(sizes))).size).toBeGreaterThan(1);
    const live = await subnet.forward(rows(9));
    const child = join(await temporaryFolder(), "child");
    await subnet.save(child);

    expect(await readdir(child)).not.toContain("config.json");
    await using loaded = await bridge.load({ checkpoint: child });
    expect(relativeDifference(await loaded.output({ input_ids: rows(9) }), live)).toBeLessThan(1e-5);
    const { inspection, values } = await verify(child, { full: true });
    expect(inspection.params).toBe(stateDict.plan.child.params);
    expect(values).toMatchObject({ ofBytes: expect.any(Number) });
  });

  it("keeps layers alike for plain transformers", async () => {
    await using model = await open(config);
    const { subnet, stateDict } = await prune(model, { gradnas: { ...FINE, uniform: true } }, { flops: "85%" }, rows(0), {
      lossFunc,
      dataLoader,
    });
    const child = join(await temporaryFolder(), "child");
    await subnet.save(child);
    const kept = spelledOut(model.parent, stateDict.plan);
    expect(await reference.check({ parent: model.parent.checkpoint.dir, child, kept, masked: true })).toBe("ok");
    expect((await inspect(child)).params).toBe(stateDict.plan.child.params);
    expect(stateDict.costs.child.flops).toBeLessThanOrEqual(0.85 * stateDict.costs.parent.flops);
  });
});
