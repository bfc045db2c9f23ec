// Jobs of Megatron-Core on many ranks, measured over gRPC: what they give, and what a guest refuses.
import { copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import {
  type AttachedModel,
  type Batch,
  Bridge,
  type BridgeListener,
  plan,
  prune,
  python,
  readParent,
  readScoreFile,
  readTokenFile,
  readWeightedParent,
  type ScoreFile,
  score,
  slice,
  verify,
  writeScoreFile,
} from "../../src/index.js";
import { runCli } from "../fixtures/cli.js";
import { TOKENS } from "../fixtures/listeners.js";
import { GOLDENS } from "../fixtures/megatronFolders.js";
import { type JobCase, Jobs } from "../fixtures/megatronJobs.js";

const LLAMA = { parent: "llama-gqa", how: "serve" } as const;
const LAYOUTS: Readonly<Record<string, JobCase>> = {
  one: { ...LLAMA, ranks: 1 },
  tp2: { ...LLAMA, ranks: 2, tp: 2 },
  pp2: { ...LLAMA, ranks: 2, pp: 2 },
  tp2pp2: { ...LLAMA, ranks: 4, tp: 2, pp: 2 },
  ep2: { parent: "mixtral-small", how: "serve", ranks: 2, ep: 2 },
};

let jobs: Jobs;
let dialIns: BridgeListener;
let bridges: Readonly<Record<string, Bridge>>;

const token = TOKENS.change;
const attach = async (name: string): Promise<Bridge> => Bridge.attach((await jobs.ready(name)).address, { token });
const modelOf = async (name: string): Promise<AttachedModel> => (bridges[name] ?? (await attach(name))).attachedModel();
const batchesOf = (parent: string): Promise<Batch[]> =>
  readTokenFile(join(GOLDENS, parent, "data.safetensors"), { batchSize: 2, samples: 1024 });

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  dialIns = await Bridge.listen("127.0.0.1:0", { token });
  jobs = await Jobs.start(folder, {
    ...LAYOUTS,
    stepping: { ...LLAMA, ranks: 1, how: "step_until_lost" },
    dialling: { ...LLAMA, ranks: 2, tp: 2, attach: { address: null, dial: dialIns.address } },
  });
  const opened = Object.keys(LAYOUTS).map(async (name) => [name, await attach(name)] as const);
  bridges = Object.fromEntries(await Promise.all(opened));
}, 120_000);
afterAll(async () => {
  await Promise.all(Object.values(bridges ?? {}).map((bridge) => bridge.close()));
  process.kill((await jobs.ready("stepping")).pids[0] ?? 0, "SIGKILL");
  await jobs.end();
  dialIns.close();
  await rm(jobs.folder, { recursive: true, force: true });
}, 60_000);

/** The largest difference of two score files, relative to the largest score of each accumulator. */
function difference(ours: ScoreFile, theirs: ScoreFile): number {
  expect([...ours.accumulators.keys()].sort()).toEqual([...theirs.accumulators.keys()].sort());
  const each = [...theirs.accumulators].map(([name, { data }]) => {
    const other = ours.accumulators.get(name)?.data ?? new Float32Array();
    const largest = Math.max(...data.map(Math.abs));
    return Math.max(...data.map((value, i) => Math.abs(value - (other[i] ?? Number.NaN)))) / (largest || 1);
  });
  return Math.max(...each);
}

describe("scores of a job", () => {
  it.each(Object.entries(LAYOUTS))("on %s are the reference's, whatever the layout", async (name, { parent }) => {
    const model = await modelOf(name);
    const measured = await score(model, model.parent, await batchesOf(parent));
    expect(difference(measured, await readScoreFile(join(GOLDENS, parent, "scores.safetensors")))).toBeLessThan(1e-5);
  });

  it("of many ranks are those of one, as is the loss", async () => {
    const batches = await batchesOf("llama-gqa");
    const [one, ...others] = await Promise.all(["one", "tp2", "pp2", "tp2pp2"].map(modelOf));
    if (!one) throw new Error("no model");
    const [scores, loss] = [await score(one, one.parent, batches), await one.loss(batches)];
    for (const other of others) {
      expect(difference(await score(other, other.parent, batches), scores)).toBeLessThan(1e-5);
      expect(Math.abs((await other.loss(batches)) / loss - 1)).toBeLessThan(1e-5);
    }
  });

  it("of a checkpoint's weights plan and slice that checkpoint", async () => {
    const folder = join(jobs.folder, "checkpoint");
    await mkdir(folder);
    await copyFile(join(GOLDENS, "llama-gqa", "parent.hf", "config.json"), join(folder, "config.json"));
    await copyFile(join(GOLDENS, "llama-gqa", "parent.mcore.safetensors"), join(folder, "model.safetensors"));
    const live = bridges["tp2pp2"] ?? (await attach("tp2pp2"));
    const model = await live.attachedModel({ checkpoint: folder });
    const path = join(jobs.folder, "scores.safetensors");
    await writeScoreFile(path, await score(model, model.parent, await batchesOf("llama-gqa")));

    const parent = await readWeightedParent(folder);
    const exportConfig = JSON.parse(await readFile(join(GOLDENS, "llama-gqa", "case.json"), "utf8")).exports.all;
    const golden = { scores: await readScoreFile(join(GOLDENS, "llama-gqa", "scores.safetensors")), path: "golden" };
    const made = plan(parent, exportConfig, { scores: await readScoreFile(path), path });
    expect(made).toEqual(plan(parent, exportConfig, golden));
    await slice(live, parent, made, join(jobs.folder, "sliced"));
    await verify(join(jobs.folder, "sliced"), { full: true });
  });

  it("are written by the command line, of the job's own model and of a checkpoint's", async () => {
    const { address } = await jobs.ready("tp2");
    const data = join(GOLDENS, "llama-gqa", "data.safetensors");
    const out = join(jobs.folder, "by-cli.safetensors");
    const flags = ["--data", data, "--out", out, "--attach", address, "--token-file", join(jobs.folder, "token"), "--json"];
    expect((await runCli(["score", ...flags])).json).toEqual({ out, batches: 4, samples: 8, tokens: 256 });
    const measured = await readScoreFile(out);
    expect(difference(measured, await readScoreFile(join(GOLDENS, "llama-gqa", "scores.safetensors")))).toBeLessThan(1e-5);
    expect(measured.fingerprint).toBe((await modelOf("tp2")).parent.fingerprint);

    const folder = join(GOLDENS, "llama-gqa", "parent.hf");
    expect((await runCli(["score", folder, ...flags])).exitCode).toBe(0);
    expect((await readScoreFile(out)).fingerprint).toBe((await readParent(folder)).fingerprint);
  });
});

describe("pruning the model of a job", () => {
  it("decides as on the reference's scores, to given sizes and under bounds", async () => {
    const exportConfig = { ffn_hidden_size: 80, num_attention_heads: 4, num_query_groups: 2 };
    const dataLoader = await batchesOf("llama-gqa");
    const model = await modelOf("tp2");
    const { subnet, stateDict } = await prune(model, "mcore_gpt_minitron", { export_config: exportConfig }, null, { dataLoader });
    expect(subnet).toBe(model);
    const golden = { scores: await readScoreFile(join(GOLDENS, "llama-gqa", "scores.safetensors")), path: "golden" };
    expect(stateDict.plan.kept).toEqual(plan(model.parent, exportConfig, golden).kept);

    const mode = [["mcore_gpt_minitron", { hidden_size_divisor: 8, ffn_hidden_size_divisor: 16 }]] as const;
    const bounded = await prune(await modelOf("pp2"), mode, { params: "70%" }, null, { dataLoader });
    expect(bounded.stateDict.plan.child.params).toBeLessThanOrEqual(0.7 * bounded.stateDict.plan.parent.params);
  });

  it("takes a forward loop, which gets nothing back", async () => {
    const batches = await batchesOf("llama-gqa");
    const model = await modelOf("one");
    const looped = await score(model, model.parent, async (m) => {
      for (const batch of batches) await m.forward(batch);
    });
    expect(difference(looped, await score(model, model.parent, batches))).toBe(0);
    const asking = score(model, model.parent, async (m) => void (await m.forward(batches[0] ?? [[0]], { returns: "loss" })));
    await expect(asking).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/gives back neither/) });
  });

  it("goes on with stored scores of the same weights alone", async () => {
    const live = await attach("stepping");
    onTestFinished(() => live.close());
    const config = { dataLoader: await batchesOf("llama-gqa"), checkpoint: join(jobs.folder, "runs") };
    const sizes = { export_config: { num_layers: 3 } };
    const before = await live.attachedModel();
    await prune(before, "mcore_gpt_minitron", sizes, null, config);
    const later = await attach("stepping");
    onTestFinished(() => later.close());
    for (const bridge of [live, later]) {
      const after = await bridge.attachedModel();
      expect(after.parent.fingerprint).not.toBe(before.parent.fingerprint);
      await expect(prune(after, "mcore_gpt_minitron", sizes, null, config)).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH" });
    }
    const still = bridges["one"] ?? (await attach("one"));
    const serving = { ...config, checkpoint: join(jobs.folder, "runs-of-one") };
    await prune(await still.attachedModel(), "mcore_gpt_minitron", sizes, null, serving);
    await expect(prune(await still.attachedModel(), "mcore_gpt_minitron", sizes, null, serving)).resolves.toBeDefined();
  });
});

describe("a job that dials in", () => {
  it("is measured as one that was attached to", async () => {
    await using bridge = await dialIns.accept();
    expect(bridge.shim.ranks).toMatchObject({ worldSize: 2, tensor: 2 });
    const model = await bridge.attachedModel();
    const measured = await score(model, model.parent, await batchesOf("llama-gqa"));
    expect(difference(measured, await readScoreFile(join(GOLDENS, "llama-gqa", "scores.safetensors")))).toBeLessThan(1e-5);
  });
});

describe("a guest refuses, before any work,", () => {
  const neverDrawn = {
    // biome-ignore lint/correctness/useYield: nothing is to be drawn
    async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
      throw new Error("it was drawn");
    },
  };
  it.each<[string, (live: Bridge, model: AttachedModel) => Promise<unknown>, string, RegExp]>([
    ["to open a model of its own", (live) => live.open(join(GOLDENS, "llama-gqa", "parent.hf")), "BAD_OPTION", /guest of a job/],
    [
      "to run candidates",
      (_live, model) => prune(model, "mcore_gpt_minitron", { params: "80%" }, null, { dataLoader: neverDrawn, scoreFunc: () => 0 }),
      "BAD_OPTION",
      /candidates cannot be judged/,
    ],
    ["to give logits", (_live, model) => model.forward([[1, 2, 3]]), "BAD_OPTION", /neither logits/],
    ["text without a tokenizer", (_live, model) => model.tokenize(["text"]), "BAD_OPTION", /without a tokenizer/],
    [
      "Python functions",
      (_live, model) => score(model, model.parent, { forwardLoop: python("my.loops:run") }),
      "PYTHON_DENIED",
      /no Python functions/,
    ],
    [
      "what is no batch of token ids alone",
      (_live, model) => model.loss([{ input_ids: [[1, 2, 3]], attention_mask: [[1, 1, 0]] }]),
      "BAD_DATA",
      /input_ids alone/,
    ],
    [
      "to be taken for another checkpoint's",
      (live) => live.attachedModel({ checkpoint: join(GOLDENS, "nemotron-mha", "parent.hf") }),
      "BAD_OPTION",
      /the job's model has \w+ \d+, and/,
    ],
    [
      "to be taken for a config's",
      (live) => live.attachedModel({ checkpoint: join(GOLDENS, "llama-gqa", "parent.hf", "config.json") }),
      "NOT_A_CHECKPOINT",
      /has no weights/,
    ],
    [
      "to run what is pruned of it",
      async (_live, model) => {
        const { subnet } = await prune(model, [["mcore_gpt_minitron", { skip_sorting: true }]], { export_config: { num_layers: 3 } }, null);
        return subnet.loss([[[1, 2, 3]]]);
      },
      "BAD_OPTION",
      /stays whole/,
    ],
  ])("%s", async (_what, ask, code, why) => {
    const live = bridges["tp2"] ?? (await attach("tp2"));
    await expect(ask(live, await live.attachedModel())).rejects.toMatchObject({ code, detail: expect.stringMatching(why) });
  });

  it("and a shim that is no guest has no model of its own", async () => {
    await using bridge = await Bridge.spawn();
    await expect(bridge.attachedModel()).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/no guest of a job/) });
  });
});
