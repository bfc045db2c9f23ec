// The stages through the command line, each from the files that the one before left.
import { mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { readHeader } from "../../src/checkpoint/safetensors.js";
import { TINY_LLAMA, temporaryFolder, writeCheckpoint, writeScores, writeTokens } from "../fixtures/checkpoints.js";
import { type CliResult, runCli } from "../fixtures/cli.js";

const TARGET = '{"ffn_hidden_size": 16, "num_query_groups": 2, "num_layers": 2}';

let dir: string;
let parent: string;
let data: string;
const at = (name: string): string => join(dir, name);

beforeEach(async () => {
  dir = await temporaryFolder();
  parent = await writeCheckpoint(at("parent"), TINY_LLAMA, { files: 2, dtype: "BF16" });
  data = await writeTokens(at("data.safetensors"), [4, 8], (i) => i % 50);
});

async function succeed(...args: string[]): Promise<CliResult> {
  const result = await runCli([...args, "--json"]);
  expect(result.exitCode, result.stderr).toBe(0);
  return result;
}

/** A word-level tokenizer in the form that transformers loads. */
async function writeTokenizer(folder: string): Promise<void> {
  const words = ["</s>", "the", "cat", "sat", "on", "mat", "<unk>"];
  const vocab = Object.fromEntries(words.map((word, id) => [word, id]));
  const model = { type: "WordLevel", vocab, unk_token: "<unk>" };
  const special = { content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, id: 0 };
  const tokenizer = { version: "1.0", added_tokens: [special], pre_tokenizer: { type: "Whitespace" }, model };
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify({ tokenizer_class: "PreTrainedTokenizerFast", eos_token: "</s>" }));
}

describe("stage by stage", () => {
  it("score, plan, slice and verify end in the child that prune makes in one go", async () => {
    parent = await writeCheckpoint(at("sharded"), TINY_LLAMA, { files: 3, dtype: "BF16" });
    await succeed("score", parent, "--data", data, "--batch-size", "2", "--out", at("scores.safetensors"));
    await succeed("plan", parent, "--scores", at("scores.safetensors"), "--export-config", TARGET, "--out", at("plan.json"));
    await succeed("slice", parent, "--plan", at("plan.json"), "--out", at("staged"));
    const { json } = await succeed("prune", parent, "--data", data, "--batch-size", "2", "--export-config", TARGET, "--out", at("pruned"));
    expect(json).toMatchObject({
      out: at("pruned"),
      hyperparameters: { ffn_hidden_size: 16, num_query_groups: 2, num_attention_heads: 4 },
    });

    const files = (await readdir(at("staged"))).sort();
    expect(files).toContain("model-00001-of-00002.safetensors");
    expect((await readdir(at("pruned"))).sort()).toEqual(files);
    for (const file of files) expect(await readFile(at(`staged/${file}`)), file).toEqual(await readFile(at(`pruned/${file}`)));

    const verified = await succeed("verify", at("staged"), "--load", "--data", data);
    expect(verified.json).toMatchObject({
      manifest: true,
      loads: true,
      loss: expect.any(Number),
      inspection: { params: json["params"] && (json["params"] as { child: number }).child },
    });
    expect((await readHeader(at("staged/model-00001-of-00002.safetensors"))).tensors[0]?.dtype).toBe("BF16");
  });

  it("carries the tokenizer and every other side file over, and leaves the parent as it was", async () => {
    await writeTokenizer(parent);
    await mkdir(join(parent, "original"));
    await writeFile(join(parent, "original", "notes.md"), "mine");
    await writeFile(join(parent, "pytorch_model.bin"), "old weights");
    await writeFile(at("text.jsonl"), `${JSON.stringify({ text: "the cat sat on the mat" })}\n`.repeat(20));
    const before = await Promise.all(
      (await readdir(parent)).filter((name) => name.includes(".")).map((name) => readFile(join(parent, name))),
    );
    await succeed(
      "prune",
      parent,
      "--data",
      at("text.jsonl"),
      "--seq-length",
      "16",
      "--samples",
      "3",
      "--export-config",
      TARGET,
      "--out",
      at("child"),
    );
    expect(await readFile(at("child/original/notes.md"), "utf8")).toBe("mine");
    expect(await readFile(at("child/tokenizer.json"))).toEqual(await readFile(join(parent, "tokenizer.json")));
    expect(await readdir(at("child"))).not.toContain("pytorch_model.bin");
    const after = await Promise.all(
      (await readdir(parent)).filter((name) => name.includes(".")).map((name) => readFile(join(parent, name))),
    );
    expect(after).toEqual(before);
    expect((await readdir(dir)).filter((name) => name.includes("partial"))).toEqual([]);
  });

  it("keeps what it found in a folder, and calibrates no second time", async () => {
    const args = ["prune", parent, "--checkpoint", at("run")];
    await succeed(...args, "--data", data, "--export-config", TARGET, "--out", at("first"));
    expect((await readdir(at("run"))).sort()).toEqual(["plan.json", "scores.safetensors", "search.json"]);
    await succeed(...args, "--export-config", '{"hidden_size": 16, "num_attention_heads": 3}', "--out", at("second"));
    expect(JSON.parse(await readFile(at("second/config.json"), "utf8"))).toMatchObject({
      hidden_size: 16,
      num_attention_heads: 3,
      head_dim: 8,
    });
  });

  it("prunes the most important by a planted score file, without weights in memory", async () => {
    const scores = await writeScores(at("scores.safetensors"), TINY_LLAMA, (name, i) => (name.endsWith(".mlp") && i % 5 === 0 ? 2 : 1));
    await succeed("prune", parent, "--scores", scores, "--export-config", '{"ffn_hidden_size": 8}', "--out", at("child"));
    const plan = JSON.parse(await readFile(at("child/plan.json"), "utf8"));
    expect(plan.kept.ffn).toEqual({ "0": "0,5,10,15,20,25,30,35", "1": "0,5,10,15,20,25,30,35", "2": "0,5,10,15,20,25,30,35" });
  });
});

describe("verify", () => {
  beforeEach(async () => {
    const scores = await writeScores(at("scores.safetensors"), TINY_LLAMA, (_, i) => i);
    await succeed("prune", parent, "--scores", scores, "--export-config", TARGET, "--out", at("child"));
  });

  async function expectFailure(code: string, message: RegExp): Promise<void> {
    const result = await runCli(["verify", at("child"), "--json"]);
    expect(result.json["error"], result.stderr).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(result.exitCode).toBe(code === "VERIFY_FAILED" ? 1 : 2);
  }

  it("sees a single bit that changed", async () => {
    const [shard = ""] = (await readdir(at("child"))).filter((name) => name.endsWith(".safetensors"));
    const path = at(`child/${shard}`);
    const file = await open(path, "r+");
    const { size } = await file.stat();
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 7);
    await file.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, size - 7);
    await file.close();
    await expectFailure("VERIFY_FAILED", /has CRC-32 .* the manifest states/);
  });

  it("sees another plan", async () => {
    await writeFile(at("child/plan.json"), (await readFile(at("child/plan.json"), "utf8")).replaceAll("24-39", "23-38"));
    await expectFailure("VERIFY_FAILED", /is not the plan/);
  });

  it("sees another config", async () => {
    const config = JSON.parse(await readFile(at("child/config.json"), "utf8"));
    await writeFile(at("child/config.json"), JSON.stringify({ ...config, intermediate_size: 17 }));
    await expectFailure("BAD_TENSOR", /config.json makes/);
  });
});

describe("without Python", () => {
  const env = { PRUNEBRIDGE_PYTHON: "/no-python-here" };

  it("inspects, plans and searches from a bare config.json", async () => {
    await writeFile(at("config.json"), JSON.stringify(TINY_LLAMA));
    const inspected = await runCli(["inspect", at("config.json"), "--json"], env);
    expect(inspected.json).toMatchObject({
      family: "llama",
      hyperparameters: { kv_channels: 8 },
      params: expect.any(Number),
      activeParams: expect.any(Number),
    });
    const planned = await runCli(
      ["plan", at("config.json"), "--export-config", TARGET, "--skip-sorting", "--out", at("plan.json"), "--json"],
      env,
    );
    expect(planned.exitCode).toBe(0);
    expect((await runCli(["slice", parent, "--plan", at("plan.json"), "--out", at("child"), "--json"])).exitCode).toBe(0);
    const found = await runCli(
      ["search", at("config.json"), "--params", "90%", "--hidden-size-divisor", "4", "--ffn-hidden-size-divisor", "8", "--json"],
      env,
    );
    expect(found.json).toMatchObject({
      primary: "params",
      candidates: expect.arrayContaining([expect.objectContaining({ costs: expect.anything() })]),
    });
  });
});
