import { copyFile, mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Batch, Bridge, inspect, plan, readScoreFile, readWeightedParent, slice, verify } from "../../src/index.js";
import { asFloat32 } from "../../src/tensor.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { largestDifference, readTensor } from "../fixtures/goldens.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const CASES = {
  "llama-gqa": ["ffn", "heads", "groups", "hidden", "depth", "all"],
  "mixtral-small": ["experts", "moeffn", "all"],
  // Its norms are around one here, and around zero in transformers.
  "nemotron-mha": ["ffn", "groups", "all"],
};

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

/** A folder with the case's weights under Megatron-Core's names, beside the Hugging Face config. */
async function megatronFolder(golden: string): Promise<string> {
  const folder = join(await temporaryFolder(), "parent");
  await mkdir(folder);
  await copyFile(join(HERE, golden, "parent.hf", "config.json"), join(folder, "config.json"));
  await copyFile(join(HERE, golden, "parent.mcore.safetensors"), join(folder, "model.safetensors"));
  return folder;
}

describe.each(Object.entries(CASES))("%s under Megatron-Core's names", (golden, exports) => {
  const data = join(HERE, golden, "data.safetensors");

  it.each(exports)("%s: the child gives the reference's logits in transformers, by way of either layout", async (exported) => {
    const exportConfig = JSON.parse(await readFile(join(HERE, golden, "case.json"), "utf8")).exports[exported];
    const probe: Batch = { input_ids: await readTensor(data, "probe_input_ids") };
    const expected = asFloat32(await readTensor(join(HERE, golden, "expected_logits.safetensors"), exported));
    const out = await temporaryFolder();
    const scores = await readScoreFile(join(HERE, golden, "scores.safetensors"));

    const parent = await readWeightedParent(await megatronFolder(golden));
    expect(parent.matched?.layout).toBe("megatron");
    const made = plan(parent, exportConfig, { scores, path: "scores.safetensors" });
    await slice(bridge, parent, made, join(out, "huggingface"), { layout: "huggingface" });
    await slice(bridge, parent, made, join(out, "megatron"));

    // The child in Megatron-Core's layout, taken apart without any cut, is the other one.
    const child = await readWeightedParent(join(out, "megatron"));
    const { hidden_size } = child.architecture.hyperparameters;
    const whole = plan(child, { hidden_size }, "position");
    await slice(bridge, child, whole, join(out, "apart"), { layout: "huggingface" });

    for (const name of ["huggingface", "apart"]) {
      await verify(join(out, name), { full: true });
      expect((await inspect(join(out, name))).layout).toBe("huggingface");
      await using model = await bridge.open(join(out, name));
      expect(largestDifference(asFloat32(await model.forward(probe)), expected), name).toBeLessThanOrEqual(1e-4);
    }
    expect((await verify(join(out, "megatron"), { full: true })).inspection.layout).toBe("megatron");
  });
});
