// Children that jobs of Megatron-Core save from their live weights, all ranks together.
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import {
  type AttachedModel,
  type Batch,
  Bridge,
  inspect,
  plan,
  readScoreFile,
  readWeightedParent,
  type SaveOptions,
  slice,
  verify,
} from "../../src/index.js";
import { asFloat32 } from "../../src/tensor.js";
import { runCli } from "../fixtures/cli.js";
import { largestDifference, readTensor } from "../fixtures/goldens.js";
import { TOKENS } from "../fixtures/listeners.js";
import { GOLDENS } from "../fixtures/megatronFolders.js";
import { type JobCase, Jobs, writeMegatronCheckpoint } from "../fixtures/megatronJobs.js";

const CASES: Readonly<Record<string, JobCase>> = {
  llama: { parent: "llama-gqa", how: "serve", ranks: 4, tp: 2, pp: 2 },
  nemotron: { parent: "nemotron-mha", how: "serve", ranks: 2, tp: 2 },
  mixtral: { parent: "mixtral-small", how: "serve", ranks: 2, ep: 2 },
};

let jobs: Jobs;
let spawned: Bridge;
beforeAll(async () => {
  jobs = await Jobs.start(await mkdtemp(join(tmpdir(), "prunebridge-test-")), CASES);
  spawned = await Bridge.spawn();
}, 120_000);
afterAll(async () => {
  await spawned?.close();
  await jobs.end();
  await rm(jobs.folder, { recursive: true, force: true });
}, 60_000);

async function attach(name: string): Promise<AttachedModel> {
  const bridge = await Bridge.attach((await jobs.ready(name)).address, { token: TOKENS.change });
  onTestFinished(() => bridge.close());
  return bridge.attachedModel();
}

/** The model of a job, pruned to an export of its golden case. */
async function pruned(
  name: string,
): Promise<{ model: AttachedModel; golden: string; exportConfig: unknown; scored: Parameters<typeof plan>[2] }> {
  const golden = join(GOLDENS, CASES[name]?.parent ?? "");
  const exportConfig = JSON.parse(await readFile(join(golden, "case.json"), "utf8")).exports.all;
  const scored = { scores: await readScoreFile(join(golden, "scores.safetensors")), path: "golden" };
  const model = await attach(name);
  model.prune(plan(model.parent, exportConfig, scored));
  return { model, golden, exportConfig, scored };
}

/** The bytes of every tensor of a checkpoint. */
async function tensorsOf(folder: string): Promise<Map<string, Uint8Array>> {
  const { checkpoint } = await readWeightedParent(folder);
  const read = checkpoint.tensors.map(async ({ name, file }) => [name, (await readTensor(join(folder, file), name)).data] as const);
  return new Map((await Promise.all(read)).sort(([a], [b]) => (a < b ? -1 : 1)));
}

it("is refused by a plan whose layers have sizes of their own", async () => {
  const model = await attach("llama");
  const { hyperparameters } = model.parent.architecture;
  const made = plan(model.parent, { num_layers: hyperparameters.num_layers - 1 }, "position");
  const layers = [{ ffn_hidden_size: 64, num_attention_heads: 8, num_query_groups: 4 }];
  expect(() => model.prune({ ...made, layers })).toThrow(/BAD_OPTION.*cannot be saved from a job[\s\S]*uniform: true/);
  expect(model.plan).toBeUndefined();
});

describe.each(Object.keys(CASES))("the child of the %s job", (name) => {
  it("in Megatron's layout is the one that is sliced from the job's checkpoint", async () => {
    const { model, exportConfig, scored } = await pruned(name);
    const out = join(jobs.folder, `${name}.megatron`);
    const told: number[] = [];
    const manifest = await model.save(out, { sha256: true, onProgress: ({ done }) => told.push(done) });
    expect(manifest.parent.fingerprint).toBe(model.parent.fingerprint);
    expect(told.at(-1)).toBeGreaterThan(0);
    expect(await verify(out)).toMatchObject({ manifest: true, values: { unchecked: "it was saved from the live weights of a job" } });

    const parent = await readWeightedParent(await writeMegatronCheckpoint(join(jobs.folder, `${name}.parent`), CASES[name]?.parent ?? ""));
    const sliced = join(jobs.folder, `${name}.sliced`);
    await slice(spawned, parent, plan(parent, exportConfig, scored), sliced);
    expect(await tensorsOf(out)).toEqual(await tensorsOf(sliced));
    expect((await inspect(out)).hyperparameters).toEqual((await inspect(sliced)).hyperparameters);
  });

  it("with the config of its family gives the reference's logits in transformers", async () => {
    const { model, golden } = await pruned(name);
    const out = join(jobs.folder, `${name}.huggingface`);
    const manifest = await model.save(out, { like: join(golden, "parent.hf") });
    expect((await verify(out)).inspection.layout).toBe("huggingface");
    expect(manifest.params.child).toBe((await inspect(out)).params);
    await using child = await spawned.open(out);
    const probe: Batch = { input_ids: await readTensor(join(golden, "data.safetensors"), "probe_input_ids") };
    const expected = asFloat32(await readTensor(join(golden, "expected_logits.safetensors"), "all"));
    expect(largestDifference(asFloat32(await child.forward(probe)), expected)).toBeLessThanOrEqual(1e-4);
  });
});

it("of two saves of a job into one target, one is there whole and the other says so", async () => {
  const models = await Promise.all([pruned("llama"), pruned("llama")]);
  const out = join(jobs.folder, "twice");
  const outcomes = await Promise.allSettled(models.map(({ model }) => model.save(out)));
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  expect(outcomes.find(({ status }) => status === "rejected")).toMatchObject({ reason: { code: "TARGET_EXISTS" } });
  await verify(out);
  expect((await readdir(jobs.folder)).filter((name) => name.includes("twice"))).toEqual(["twice"]);
});

/** The config of a golden parent as one of a quantised checkpoint has it. */
async function quantizedConfig(parent: string): Promise<string> {
  const folder = await mkdtemp(join(jobs.folder, "quantized-"));
  const config = JSON.parse(await readFile(join(GOLDENS, parent, "parent.hf", "config.json"), "utf8"));
  const quantization_config = { quant_method: "fp8", fmt: "e4m3", weight_block_size: [128, 128], activation_scheme: "dynamic" };
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, quantization_config }));
  return folder;
}

describe("saving from a job refuses, and leaves nothing,", () => {
  const hf = (parent: string): string => join(GOLDENS, parent, "parent.hf");
  it.each<[string, SaveOptions, string, RegExp]>([
    ["a family's layout without its config", { layout: "huggingface" }, "BAD_OPTION", /is Megatron's/],
    ["the config of another network", { like: hf("mixtral-small") }, "BAD_OPTION", /the job's model has \w+ \d+, and/],
    ["a layout that the family lacks", { like: hf("llama-gqa"), layout: "huggingface_packed" }, "BAD_OPTION", /no layout/],
    ["to write as Megatron saves", { format: "torch_dist" }, "BAD_OPTION", /written as safetensors/],
  ])("%s", async (_what, options, code, why) => {
    const { model } = await pruned("llama");
    const refusal = { code, detail: expect.stringMatching(why) };
    await expect(model.save(join(jobs.folder, "refused"), options)).rejects.toMatchObject(refusal);
    await expect((await attach("llama")).checkSavable(options)).rejects.toMatchObject(refusal);
    expect((await readdir(jobs.folder)).filter((name) => name.includes("refused"))).toEqual([]);
  });

  it.each([
    ["a layout without its config", ["--layout", "huggingface"]],
    ["the config of another network", ["--like", hf("mixtral-small")]],
    ["a device of its own", ["--device", "cpu"]],
    ["a type of its own", ["--dtype", "float32"]],
  ])("%s, on the command line before it calibrates", async (_what, flags) => {
    const { address } = await jobs.ready("llama");
    const found = join(jobs.folder, "found");
    const shim = ["--attach", address, "--token-file", join(jobs.folder, "token")];
    const data = ["--data", join(GOLDENS, "llama-gqa", "data.safetensors"), "--checkpoint", found];
    const sizes = ["--export-config", '{"ffn_hidden_size": 80}', "--out", join(jobs.folder, "refused"), "--json"];
    const { exitCode, json } = await runCli(["prune", ...shim, ...data, ...sizes, ...flags]);
    expect([exitCode, json["error"]]).toEqual([2, expect.objectContaining({ code: "BAD_OPTION" })]);
    expect(await readdir(found).catch(() => [])).toEqual([]);
  });

  it("the config of quantised weights", async () => {
    const { model } = await pruned("llama");
    const saving = model.save(join(jobs.folder, "refused"), { like: await quantizedConfig("llama-gqa") });
    await expect(saving).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/is quantised \(/) });
    expect((await readdir(jobs.folder)).filter((name) => name.includes("refused"))).toEqual([]);
  });

  it("targets that hold something, or lie outside of the job's roots", async () => {
    const { model } = await pruned("llama");
    await expect(model.save(jobs.folder)).rejects.toMatchObject({ code: "TARGET_EXISTS" });
    const outside = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
    await expect(model.save(join(outside, "child"))).rejects.toMatchObject({ code: "PATH_DENIED" });
    expect(await readdir(outside)).toEqual([]);
    await rm(outside, { recursive: true });
  });

  it("what was not pruned; and no checkpoint's child gets files of another", async () => {
    await expect((await attach("llama")).save(join(jobs.folder, "refused"))).rejects.toMatchObject({ code: "BAD_PLAN" });
    await using opened = await spawned.open(hf("llama-gqa"));
    opened.prune(plan(opened.parent, { num_layers: 3 }, "position"));
    const saving = opened.save(join(jobs.folder, "refused"), { like: hf("llama-gqa") });
    await expect(saving).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/gets its files/) });
  });
});
