import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Batch, Bridge, prune, readScoreFile, readTokenFile, verify } from "../../src/index.js";
import { asFloat32 } from "../../src/tensor.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { largestDifference, readTensor } from "../fixtures/goldens.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const CASES = {
  "llama-gqa": ["ffn", "heads", "groups", "hidden", "depth", "all"],
  "nemotron-mha": ["ffn", "groups", "all"],
  "mixtral-small": ["experts", "moeffn", "all"],
};

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

describe.each(Object.entries(CASES))("%s", (name, exports) => {
  const folder = join(HERE, name);
  const parent = join(folder, "parent.hf");
  const data = join(folder, "data.safetensors");
  const calibration = (): Promise<Batch[]> => readTokenFile(data, { batchSize: 1, samples: 1 });

  it("has every export of the case", async () => {
    expect(Object.keys(JSON.parse(await readFile(join(folder, "case.json"), "utf8")).exports)).toEqual(exports);
  });

  it("accumulates what NVIDIA's hooks accumulate", async () => {
    await using model = await bridge.open(parent);
    const target = { export_config: { hidden_size: 16 } };
    const { scores } = await prune(model, "mcore_gpt_minitron", target, null, { dataLoader: await calibration() });
    const expected = await readScoreFile(join(folder, "scores.safetensors"));
    expect([...(scores?.accumulators.keys() ?? [])].sort()).toEqual([...expected.accumulators.keys()].sort());
    for (const [key, { data: theirs }] of expected.accumulators) {
      const ours = scores?.accumulators.get(key)?.data ?? new Float32Array();
      for (const [i, value] of theirs.entries()) expect(Math.abs((ours[i] ?? Number.NaN) - value), `${key}[${i}]`).toBeLessThanOrEqual(1e-4 * Math.abs(value));
    }
  });

  it.each(exports)("%s: the child gives the reference's logits, on storage and in place", async (exported) => {
    const exportConfig = JSON.parse(await readFile(join(folder, "case.json"), "utf8")).exports[exported];
    const probe: Batch = { input_ids: await readTensor(data, "probe_input_ids") };
    const expected = asFloat32(await readTensor(join(folder, "expected_logits.safetensors"), exported));
    const out = join(await temporaryFolder(), "child");

    await using model = await bridge.open(parent);
    const { subnet } = await prune(model, "mcore_gpt_minitron", { export_config: exportConfig }, null, { dataLoader: await calibration() });
    await subnet.save(out);
    expect(largestDifference(asFloat32(await subnet.forward(probe)), expected)).toBeLessThanOrEqual(1e-4);

    await verify(out);
    await using child = await bridge.open(out);
    expect(largestDifference(asFloat32(await child.forward(probe)), expected)).toBeLessThanOrEqual(1e-4);
  });
});
