import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Batch, Bridge, inspect, plan, readScoreFile, readWeightedParent, type SliceOptions, slice, verify } from "../../src/index.js";
import { asFloat32 } from "../../src/tensor.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { largestDifference, readTensor } from "../fixtures/goldens.js";
import { GOLDENS, type MegatronModels, SAVED, saveMegatronFolders, startMegatronModels } from "../fixtures/megatronFolders.js";

const ITERATION = "iter_0000010";
const LARGEST_DIFFERENCE = 1e-4;

let saved: string;
let bridge: Bridge;
let models: MegatronModels;
beforeAll(async () => {
  models = startMegatronModels();
  saved = await mkdtemp(join(tmpdir(), "prunebridge-golden-"));
  await saveMegatronFolders(saved);
  bridge = await Bridge.spawn();
});
afterAll(async () => {
  await models?.stop();
  await bridge?.close();
  await rm(saved, { recursive: true, force: true });
});

interface GoldenCase {
  readonly config: Readonly<Record<string, unknown>>;
  readonly exports: Readonly<Record<string, unknown>>;
}

async function caseOf(golden: string): Promise<GoldenCase> {
  return JSON.parse(await readFile(join(GOLDENS, golden, "case.json"), "utf8")) as GoldenCase;
}

/** A folder with the case's weights in safetensors, under Megatron-Core's names, and its sizes under Megatron's. */
async function safetensorsFolder(golden: string): Promise<string> {
  const { config } = await caseOf(golden);
  const folder = join(await temporaryFolder(), "parent");
  await mkdir(folder);
  await cp(join(GOLDENS, golden, "parent.mcore.safetensors"), join(folder, "model.safetensors"));
  const { arch: _, act, norm, topk, seq: _seq, batch: _batch, batches: _batches, seed: _seed, ...sizes } = config;
  const stated = {
    architectures: ["GPTModel"],
    ...sizes,
    ...(topk !== undefined && { moe_router_topk: topk }),
    normalization: norm,
    gated_linear_unit: act === "swiglu",
    add_bias_linear: false,
    position_embedding_type: "rope",
    share_embeddings_and_output_weights: false,
  };
  await writeFile(join(folder, "config.json"), JSON.stringify(stated));
  return folder;
}

/** What Megatron-Core saved, with the Hugging Face config that makes it its family's. */
async function familyFolder(name: string, golden: string): Promise<string> {
  const folder = join(await temporaryFolder(), name);
  await cp(join(saved, name), folder, { recursive: true });
  await cp(join(GOLDENS, golden, "parent.hf", "config.json"), join(folder, ITERATION, "config.json"));
  return folder;
}

async function expectedLogits(golden: string, exported: string): Promise<Float32Array> {
  return asFloat32(await readTensor(join(GOLDENS, golden, "expected_logits.safetensors"), exported));
}

/** Cuts a parent by an export of its case, and checks every byte of the child. */
async function sliceChild(from: string, golden: string, exported: string, options: SliceOptions): Promise<string> {
  const scores = await readScoreFile(join(GOLDENS, golden, "scores.safetensors"));
  const parent = await readWeightedParent(from);
  const made = plan(parent, (await caseOf(golden)).exports[exported], { scores, path: "scores.safetensors" });
  const child = join(await temporaryFolder(), "child");
  await slice(bridge, parent, made, child, options);
  const { values, inspection } = await verify(child, { full: true });
  expect(values).toMatchObject({ bytes: inspection.weights?.bytes, ofBytes: inspection.weights?.bytes });
  return child;
}

describe.each([
  ["llama", "llama-gqa"],
  ["mixtral", "mixtral-small"],
  ["nemotron", "nemotron-mha"],
] as const)("%s, saved by Megatron-Core", (name, golden) => {
  it("each child gives the reference's logits in Megatron-Core, whatever it was cut from and into", async () => {
    const exported = Object.keys((await caseOf(golden)).exports);
    const ways: [from: string, options: SliceOptions][] = [
      [join(saved, name), {}],
      [join(saved, name), { format: "safetensors" }],
      [await safetensorsFolder(golden), {}],
    ];
    const children: string[] = [];
    const expected: Float32Array[] = [];
    for (const each of exported) {
      for (const [from, options] of ways) {
        children.push(await sliceChild(from, golden, each, options));
        expected.push(await expectedLogits(golden, each));
      }
    }
    const found = await models.logits(golden, children);
    for (const [i, logits] of found.entries()) {
      expect(largestDifference(logits, expected[i] ?? new Float32Array()), children[i]).toBeLessThanOrEqual(LARGEST_DIFFERENCE);
    }
  });

  it("each child gives the reference's logits in transformers, once it is converted", async () => {
    const probe: Batch = { input_ids: await readTensor(join(GOLDENS, golden, "data.safetensors"), "probe_input_ids") };
    const parent = await familyFolder(name, golden);
    for (const exported of Object.keys((await caseOf(golden)).exports)) {
      const child = await sliceChild(parent, golden, exported, { layout: "huggingface" });
      expect((await inspect(child)).layout).toBe("huggingface");
      await using model = await bridge.open(child);
      const difference = largestDifference(asFloat32(await model.forward(probe)), await expectedLogits(golden, exported));
      expect(difference, exported).toBeLessThanOrEqual(LARGEST_DIFFERENCE);
    }
  });
});

it("a child is the same whatever ranks saved its parent", async () => {
  const logits = new Map<string, string[]>();
  for (const [name, golden] of Object.entries(SAVED)) {
    if (name === "mixtral-numbered") continue; // its layers are no axis, and its model is built to match
    const child = await sliceChild(join(saved, name), golden, "all", {});
    logits.set(golden, [...(logits.get(golden) ?? []), child]);
  }
  for (const [golden, children] of logits) {
    const expected = await expectedLogits(golden, "all");
    for (const [i, found] of (await models.logits(golden, children)).entries()) {
      expect(largestDifference(found, expected), children[i]).toBeLessThanOrEqual(LARGEST_DIFFERENCE);
    }
  }
});
