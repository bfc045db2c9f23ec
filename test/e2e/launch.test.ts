// Jobs that are launched for a checkpoint: their scores are the checkpoint's, and they end with what started them.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import {
  Bridge,
  type LaunchedBridge,
  type LaunchOptions,
  plan,
  readScoreFile,
  readTokenFile,
  readWeightedParent,
  score,
  slice,
  verify,
} from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { isAlive } from "../fixtures/failures.js";
import { GOLDENS, saveMegatronFolders } from "../fixtures/megatronFolders.js";
import { ON_CPU, writeMegatronCheckpoint } from "../fixtures/megatronJobs.js";

const GOLDEN = join(GOLDENS, "llama-gqa");
let folder: string;
let checkpoint: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  checkpoint = await writeMegatronCheckpoint(join(folder, "checkpoint"), "llama-gqa");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function launch(options: Partial<LaunchOptions>): Promise<LaunchedBridge> {
  const bridge = await Bridge.launch({ checkpoint, nprocPerNode: 2, env: ON_CPU, ...options });
  onTestFinished(() => bridge.close());
  return bridge;
}

describe("a job that is launched", () => {
  it("gives scores that plan and slice its checkpoint, and ends with the bridge", { timeout: 120_000 }, async () => {
    const bridge = await launch({ nprocPerNode: 4, tensorModelParallelSize: 2, pipelineModelParallelSize: 2 });
    expect(bridge.shim.ranks).toMatchObject({ worldSize: 4, tensor: 2, pipeline: 2 });
    const model = await bridge.attachedModel();
    const scores = await score(model, model.parent, await readTokenFile(join(GOLDEN, "data.safetensors"), { batchSize: 2, samples: 8 }));
    const parent = await readWeightedParent(checkpoint);
    expect(scores.fingerprint).toBe(parent.fingerprint);
    const exportConfig = JSON.parse(await readFile(join(GOLDEN, "case.json"), "utf8")).exports.all;
    const made = plan(parent, exportConfig, { scores, path: "the job's" });
    expect(made.kept).toEqual(
      plan(parent, exportConfig, { scores: await readScoreFile(join(GOLDEN, "scores.safetensors")), path: "golden" }).kept,
    );
    await slice(bridge, parent, made, join(folder, "child"));
    await verify(join(folder, "child"), { full: true });
    await bridge.close();
    expect(isAlive(bridge.pid)).toBe(false);
  });
});

/** A checkpoint's root with two iterations, the second of another network, and an interpreter that makes it the latest as it starts. */
async function writeGrowingRoot(): Promise<{ root: string; python: string }> {
  const saved = join(folder, "saved");
  await saveMegatronFolders(saved);
  const root = join(saved, "llama");
  await cp(join(saved, "mixtral", "iter_0000010"), join(root, "iter_0000020"), { recursive: true });
  const python = join(folder, "python");
  const tracker = join(root, "latest_checkpointed_iteration.txt");
  await writeFile(python, `#!/bin/sh\necho 20 > "${tracker}"\nexec "${findPython()}" "$@"\n`, { mode: 0o755 });
  return { root, python };
}

describe("a job that is launched for a root", () => {
  it("has the iteration that was the latest then, and so do its scores", { timeout: 240_000 }, async () => {
    const { root, python } = await writeGrowingRoot();
    const { fingerprint } = await readWeightedParent(root);
    const bridge = await launch({ checkpoint: root, nprocPerNode: 1, python });
    for (const options of [{}, { checkpoint: undefined }]) {
      const { parent } = await bridge.attachedModel(options);
      expect(parent.fingerprint).toBe(fingerprint);
      expect(parent.architecture.hyperparameters.num_moe_experts).toBeUndefined();
    }
    expect((await readWeightedParent(root)).architecture.hyperparameters.num_moe_experts).toBe(4);
  });
});

describe("a job is not launched", () => {
  it.each<[string, Partial<LaunchOptions>, string, RegExp]>([
    ["on ranks that do not divide", { nprocPerNode: 3, tensorModelParallelSize: 2 }, "BAD_OPTION", /not a multiple of the 2 ranks/],
    ["on no ranks", { nprocPerNode: 0 }, "BAD_OPTION", /nprocPerNode/],
    ["for what is not there", { checkpoint: "/no/such/folder" }, "PATH_NOT_FOUND", /does not exist/],
    ["for a checkpoint in another layout", { checkpoint: join(GOLDEN, "parent.hf") }, "BAD_OPTION", /layout huggingface/],
    ["by an interpreter that is not there", { python: "/no/such/python" }, "SHIM_START_FAILED", /ended before the shim was ready/],
    ["on GPUs that are not there", { device: "cuda", env: { ...ON_CPU, CUDA_VISIBLE_DEVICES: "" } }, "SHIM_START_FAILED", /has no GPU/],
  ])("%s", { timeout: 120_000 }, async (_what, options, code, why) => {
    await expect(launch(options)).rejects.toMatchObject({ code, detail: expect.stringMatching(why) });
  });
});
