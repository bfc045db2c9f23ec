import { cp, mkdir, mkdtemp, open, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { locateChunk } from "../../src/checkpoint/megatron/checkChunks.js";
import { readDistMetadata } from "../../src/checkpoint/megatron/distMetadata.js";
import { RangeFile } from "../../src/checkpoint/megatron/rangeFile.js";
import { COMMON_CLASSES, METADATA_CLASSES, TENSOR_CLASSES } from "../../src/checkpoint/megatron/torchNames.js";
import { readHeader, readTensorBytes } from "../../src/checkpoint/safetensors.js";
import {
  Bridge,
  inspect,
  type Manifest,
  plan,
  readParent,
  readScoreFile,
  readWeightedParent,
  type SliceOptions,
  slice,
  verify,
} from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { runCli } from "../fixtures/cli.js";
import { GOLDENS, readView, SAVED, saveMegatronFolders } from "../fixtures/megatronFolders.js";

const SHIM = join(GOLDENS, "..", "..", "python_shim");
const ITERATION = "iter_0000010";
let saved: string;

beforeAll(async () => {
  saved = await mkdtemp(join(tmpdir(), "prunebridge-megatron-"));
  await saveMegatronFolders(saved);
});
afterAll(() => rm(saved, { recursive: true, force: true }));

/** A copy of a save that a test may change. */
async function copyOf(name: string): Promise<string> {
  const root = join(await temporaryFolder(), name);
  await cp(join(saved, name), root, { recursive: true });
  return root;
}

describe.each(Object.entries(SAVED))("%s", (name, golden) => {
  const hub = join(GOLDENS, golden, "parent.hf");

  it("has the tensors of the parent, bit for bit", async () => {
    const { checkpoint, matched } = await readParent(join(saved, name));
    const header = await readHeader(join(GOLDENS, golden, "parent.mcore.safetensors"));
    const expected = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
    for (const { stored, row, layer, expert } of matched?.tensors ?? []) {
      const tensor = expected.get(row.name.replace("{layer}", String(layer)).replace("{expert}", String(expert)));
      expect(tensor, stored.name).toBeDefined();
      if (!tensor || !stored.view) continue;
      expected.delete(tensor.name);
      const found = await readView(checkpoint.dir, checkpoint.torchDist?.tensors ?? [], stored.view);
      expect(Buffer.compare(found, await readTensorBytes(header, tensor)), stored.name).toBe(0);
    }
    expect([...expected.keys()]).toEqual([]);
  });

  it("is what its Hugging Face form is", async () => {
    const [ours, theirs] = [await inspect(join(saved, name)), await inspect(hub)];
    const { hyperparameters, params, activeParams, tiedEmbeddings } = theirs;
    expect(ours).toMatchObject({ family: "megatron_gpt", layout: "megatron", hyperparameters, params, activeParams, tiedEmbeddings });
    expect(ours.weights).toMatchObject({ bytes: theirs.weights?.bytes, dtypes: ["F32"] });
    expect(ours.weights?.leftOut).toBeGreaterThan(0);
  });

  it("is planned as its Hugging Face form is", async () => {
    const path = join(GOLDENS, golden, "scores.safetensors");
    const scores = { scores: await readScoreFile(path), path };
    const { exports } = JSON.parse(await readFile(join(GOLDENS, golden, "case.json"), "utf8"));
    const [ours, theirs] = [await readParent(join(saved, name)), await readParent(hub)];
    for (const exportConfig of Object.values(exports)) {
      const [made, expected] = [plan(ours, exportConfig, scores), plan(theirs, exportConfig, scores)];
      expect(made.kept).toEqual(expected.kept);
      expect(made.child).toEqual(expected.child);
    }
  });

  it("has the checksums of its save", async () => {
    const { checkedBytes, inspection } = await verify(join(saved, name));
    expect(checkedBytes).toBe(inspection.weights?.bytes);
  });
});

describe("a checkpoint's root", () => {
  it("is the iteration that its tracker names, and never the highest", async () => {
    const root = await copyOf("llama");
    await cp(join(saved, "mixtral", ITERATION), join(root, "iter_0000020"), { recursive: true });
    expect((await inspect(root)).hyperparameters.num_moe_experts).toBeUndefined();
    await writeFile(join(root, "latest_checkpointed_iteration.txt"), "20\n");
    expect((await inspect(root)).hyperparameters.num_moe_experts).toBe(4);
    await rename(join(root, ITERATION), join(root, "release"));
    await writeFile(join(root, "latest_checkpointed_iteration.txt"), "release");
    expect((await inspect(root)).hyperparameters.num_moe_experts).toBeUndefined();
  });

  it("is not run by a shim of one process", async () => {
    const message =
      /NOT_A_CHECKPOINT.*iter_0000010 has its weights in Megatron's torch_dist format, .*\n.*--layout huggingface.*torchrun -m/;
    await using bridge = await Bridge.spawn();
    await expect(bridge.open(join(saved, "llama"))).rejects.toThrow(message);
    await expect(bridge.open(await readParent(join(saved, "llama")))).rejects.toThrow(message);
    for (const command of [["score"], ["prune", "--export-config", '{"num_layers": 2}']]) {
      const [name = "", ...flags] = command;
      const { exitCode, stderr } = await runCli([name, join(saved, "llama"), "--data", "none.txt", "--out", join(saved, "none"), ...flags]);
      expect([exitCode, stderr]).toEqual([2, expect.stringMatching(/torch_dist format/)]);
    }
  });

  it("is the same as the iteration's folder", async () => {
    expect(await inspect(join(saved, "llama", ITERATION))).toEqual(await inspect(join(saved, "llama")));
  });
});

const BRIDGE = `
model:
  _target_: megatron.bridge.models.llama.llama_provider.Llama31ModelProvider
  activation_func: {_call_: false, _target_: torch.nn.functional.silu}
  add_bias_linear: false
  gated_linear_unit: true
  hidden_size: 64
  ffn_hidden_size: 128
  kv_channels: 8
  num_attention_heads: 8
  num_query_groups: 4
  num_layers: 4
  num_moe_experts: null
  normalization: RMSNorm
  position_embedding_type: rope
  seq_length: 256
  share_embeddings_and_output_weights: false
  vocab_size: 256
train: {global_batch_size: 8}
`;
const NEMO = BRIDGE.replace("\nmodel:\n", "\n_target_: nemo.collections.llm.gpt.model.llama.LlamaModel\nconfig:\n").replace(
  "256\ntrain",
  "null\ntrain",
);

describe("other writers of the format", () => {
  it("NeMo 2 has its sizes in context/, and a prefix before its names", async () => {
    const root = await copyOf("nemo");
    await mkdir(join(root, "context"));
    await writeFile(join(root, "context", "model.yaml"), NEMO);
    const { hyperparameters, params } = await inspect(join(saved, "llama"));
    expect(await inspect(root)).toMatchObject({ family: "megatron_gpt", hyperparameters, params });
    expect(await inspect(join(root, "weights"))).toEqual(await inspect(root));
  });

  it("Megatron-Bridge has its sizes in run_config.yaml", async () => {
    const root = await copyOf("llama-tp2");
    await writeFile(join(root, ITERATION, "run_config.yaml"), BRIDGE);
    await writeFile(join(root, "latest_train_state.pt"), "");
    await rm(join(root, ITERATION, "common.pt"));
    const { hyperparameters, params } = await inspect(join(saved, "llama"));
    expect(await inspect(root)).toMatchObject({ hyperparameters, params });
  });

  it("what Megatron's config says of norms holds beside a Hugging Face config", async () => {
    const root = await copyOf("nemotron");
    await cp(join(GOLDENS, "nemotron-mha", "parent.hf", "config.json"), join(root, ITERATION, "config.json"));
    const isCentered = async (): Promise<boolean> => (await readParent(root)).architecture.flags.zero_centered_norms;
    expect(await isCentered()).toBe(false);
    await writeFile(join(root, ITERATION, "run_config.yaml"), "model: {layernorm_zero_centered_gamma: true}\n");
    expect(await isCentered()).toBe(true);
  });

  it("a Hugging Face config beside the weights makes them its family's", async () => {
    const root = await copyOf("llama-pp2");
    await cp(join(GOLDENS, "llama-gqa", "parent.hf", "config.json"), join(root, ITERATION, "config.json"));
    expect(await inspect(root)).toMatchObject({ family: "llama", layout: "megatron", params: 180_800 });
  });
});

describe("a child", () => {
  const TARGET = { ffn_hidden_size: 80, num_attention_heads: 4, num_layers: 3 };

  /** Cuts by position, and looks at every byte. */
  async function cut(from: string, target: string, options: SliceOptions = {}, exportConfig: unknown = TARGET): Promise<Manifest> {
    await using bridge = await Bridge.spawn();
    const parent = await readWeightedParent(from);
    const manifest = await slice(bridge, parent, plan(parent, exportConfig, "position"), target, options);
    const { values, inspection } = await verify(target, { full: true });
    expect(values).toMatchObject({ tensors: inspection.weights?.tensors, bytes: inspection.weights?.bytes });
    return manifest;
  }

  it("of Megatron-LM's is a root with a tracker, whose arguments have its sizes", async () => {
    const child = join(await temporaryFolder(), "child");
    const manifest = await cut(join(saved, "llama-tp2"), child);
    const { hyperparameters } = await inspect(join(saved, "llama"));
    expect(await inspect(child)).toMatchObject({ family: "megatron_gpt", hyperparameters: { ...hyperparameters, ...TARGET } });
    expect(await readFile(join(child, "latest_checkpointed_iteration.txt"), "utf8")).toBe("10");
    expect((await readdir(child)).sort()).toEqual([ITERATION, "latest_checkpointed_iteration.txt"]);
    const names = [".metadata", "__0_0.distcp", "common.pt", "metadata.json", "plan.json", "prune_manifest.json"];
    expect((await readdir(join(child, ITERATION))).sort()).toEqual(expect.arrayContaining(names));
    expect(manifest.leftOut).toBe((await inspect(join(saved, "llama-tp2"))).weights?.leftOut);
    expect((await inspect(child)).weights?.leftOut).toBe(0);
    // The same again finds it there, and another plan does not overwrite it.
    expect(await cut(join(saved, "llama-tp2"), child)).toEqual(manifest);
    await expect(cut(join(saved, "llama-tp2"), child, {}, { num_layers: 1 })).rejects.toThrow(/TARGET_EXISTS/);
  });

  it("of NeMo's has weights/ and context/, with its sizes in model.yaml and the rest as it was", async () => {
    const root = await copyOf("nemo");
    await mkdir(join(root, "context", "nemo_tokenizer"), { recursive: true });
    await writeFile(join(root, "context", "model.yaml"), NEMO);
    await writeFile(join(root, "context", "nemo_tokenizer", "tokenizer.json"), "{}");
    const child = join(await temporaryFolder(), "child");
    const { carried } = await cut(root, child);
    expect(carried).toEqual(["context/nemo_tokenizer/tokenizer.json"]);
    expect((await inspect(child)).hyperparameters).toMatchObject(TARGET);
    const yaml = NEMO.replace("ffn_hidden_size: 128", "ffn_hidden_size: 80")
      .replace("num_attention_heads: 8", "num_attention_heads: 4")
      .replace("num_layers: 4", "num_layers: 3");
    expect(await readFile(join(child, "context", "model.yaml"), "utf8")).toBe(yaml);
    const common = await Promise.all([root, child].map((folder) => readFile(join(folder, "weights", "common.pt"))));
    expect(common[0]?.equals(common[1] ?? Buffer.alloc(0))).toBe(true);
  });

  it("of Megatron-Bridge's has its sizes in run_config.yaml, and the state of the run", async () => {
    const root = await copyOf("llama-pp2");
    await writeFile(join(root, ITERATION, "run_config.yaml"), BRIDGE);
    await writeFile(join(root, ITERATION, "train_state.pt"), "state");
    const child = join(await temporaryFolder(), "child");
    const { carried } = await cut(root, child);
    expect(carried).toEqual([`${ITERATION}/train_state.pt`]);
    expect((await inspect(child)).hyperparameters).toMatchObject(TARGET);
    expect(await readFile(join(child, ITERATION, "run_config.yaml"), "utf8")).toContain("ffn_hidden_size: 80\n");
  });

  it("with fewer layers keeps what Megatron's config says of each, beside a Hugging Face config too", async () => {
    const root = await copyOf("llama-pp2");
    await cp(join(GOLDENS, "llama-gqa", "parent.hf", "config.json"), join(root, ITERATION, "config.json"));
    const stated = "  window_size: [4, 0]\n  window_attn_skip_freq: 2\n  no_rope_freq:\n  - 1\n  - 0\n  - 0\n  - 1\n";
    await writeFile(join(root, ITERATION, "run_config.yaml"), BRIDGE.replace("model:\n", `model:\n${stated}`));
    const child = join(await temporaryFolder(), "child");
    await cut(root, child);
    const yaml = await readFile(join(child, ITERATION, "run_config.yaml"), "utf8");
    expect(yaml).toContain("window_size: [4, 0]\n  window_attn_skip_freq: [1,0,1]\n  no_rope_freq: [1,0,0]\n");
  });

  it("has layers by their numbers where the parent has", async () => {
    const child = join(await temporaryFolder(), "child");
    await cut(join(saved, "mixtral-numbered"), child, {}, { num_layers: 1, num_moe_experts: 3 });
    const { tensors, states } = await readDistMetadata(join(child, ITERATION));
    expect(tensors.map(({ key }) => key)).toContain("decoder.layers.0.mlp.experts.experts.linear_fc1.weight");
    expect(tensors.find(({ key }) => key.endsWith("experts.linear_fc1.weight"))?.shape[0]).toBe(3);
    expect(states).toContain("decoder.layers.0.mlp.experts.experts.linear_fc2._extra_state/shard_2_3");
    expect(states.some((key) => key.includes("layers.1."))).toBe(false);
  });

  it("in safetensors has the names of modules, and a config", async () => {
    const child = join(await temporaryFolder(), "child");
    await cut(join(saved, "llama"), child, { format: "safetensors" });
    const { layout, family } = await inspect(child);
    expect([family, layout]).toEqual(["megatron_gpt", "megatron"]);
    expect((await readdir(child)).sort()).toEqual(expect.arrayContaining(["config.json", "plan.json", "prune_manifest.json"]));
    const { checkpoint } = await readParent(child);
    expect(checkpoint.tensors.map(({ name }) => name)).toContain("decoder.layers.2.input_layernorm.weight");
  });

  it("is written by the command line, in the format that is asked for", async () => {
    const dir = await temporaryFolder();
    const planned = [
      "plan",
      join(saved, "llama"),
      "--export-config",
      JSON.stringify(TARGET),
      "--skip-sorting",
      "--out",
      join(dir, "plan.json"),
    ];
    expect((await runCli(planned)).exitCode).toBe(0);
    const slicing = ["slice", join(saved, "llama"), "--plan", join(dir, "plan.json"), "--json", "--out"];
    expect((await runCli([...slicing, join(dir, "save"), "--format", "torch_dist"])).json).toMatchObject({
      shards: [{ file: "__0_0.distcp" }],
    });
    const refused = await runCli([...slicing, join(dir, "no"), "--format", "torch_dist", "--layout", "huggingface"]);
    expect([refused.exitCode, refused.stderr]).toEqual([2, expect.stringMatching(/BAD_OPTION|layout huggingface/)]);
  });

  it("in torch_dist is refused where the parent is not", async () => {
    const message = /BAD_OPTION.*torch_dist cannot be made: .* is in safetensors, and has no common\.pt/;
    await expect(cut(join(GOLDENS, "llama-gqa", "parent.hf"), join(saved, "none"), { format: "torch_dist" })).rejects.toThrow(message);
  });

  it("that was changed is found out", async () => {
    const child = join(await temporaryFolder(), "child");
    await cut(join(saved, "llama"), child);
    const { checkpoint } = await readParent(child);
    const [tensor] = checkpoint.torchDist?.tensors ?? [];
    const [chunk] = tensor?.chunks ?? [];
    if (!tensor || !chunk) throw new Error("no such tensor");
    const path = join(checkpoint.dir, chunk.file);
    await using ranges = await RangeFile.open(path);
    const { offset } = await locateChunk(ranges, tensor, chunk);
    const file = await open(path, "r+");
    await file.write(Uint8Array.of(0xff), 0, 1, offset + 101);
    await file.close();
    await expect(verify(child)).rejects.toThrow(/VERIFY_FAILED.*__0_0\.distcp has CRC-32/);
  });
});

describe("a damaged save", () => {
  it("is told by its checksums", async () => {
    const root = await copyOf("llama");
    const { checkpoint } = await readParent(root);
    const tensor = checkpoint.torchDist?.tensors.find(({ key }) => key.endsWith("linear_fc2.weight"));
    const chunk = tensor?.chunks[1];
    if (!tensor || !chunk) throw new Error("no such tensor");
    const path = join(checkpoint.dir, chunk.file);
    await using ranges = await RangeFile.open(path);
    const { offset } = await locateChunk(ranges, tensor, chunk);
    const file = await open(path, "r+");
    await file.write(Uint8Array.of(0xff), 0, 1, offset + 100);
    await file.close();
    await expect(verify(root)).rejects.toThrow(/VERIFY_FAILED.*linear_fc2\.weight at \[1, 0, 0\] has not the checksum/);
    expect((await inspect(root)).fingerprint).toBe((await inspect(join(saved, "llama"))).fingerprint);
  });

  it("is told by a file that is too short or not there", async () => {
    const root = await copyOf("llama");
    const path = join(root, ITERATION, "__0_1.distcp");
    await truncate(path, 1000);
    await expect(inspect(root)).rejects.toThrow(/BAD_TORCH_DIST.*1000 bytes long, but \.metadata places tensors up to/);
    await rm(path);
    await expect(inspect(root)).rejects.toThrow(/NOT_A_CHECKPOINT.*__0_1\.distcp is missing/);
  });

  it("is told by a .metadata that is cut off, wherever that is", async () => {
    const root = await copyOf("llama");
    const path = join(root, ITERATION, ".metadata");
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length += 97) {
      await writeFile(path, whole.subarray(0, length));
      await expect(inspect(root)).rejects.toThrow(/BAD_TORCH_DIST.*\.metadata/);
    }
  });
});

const WRITE = `
import pathlib, sys
sys.path.append("tests")
from dist_writer import DistWriter, archive
from prunebridge_shim.slicing.torch_dist_records import Box, tensor_pickle
writer = DistWriter(pathlib.Path(sys.argv[1]))
for row in range(2):
    raw = bytes(i + row for i in range(80))
    place = ("w", "U16", (2, 40), Box((row, 0), (1, 40)))
    if sys.argv[2] == "narrow":
        writer.add_archive(*place, archive(tensor_pickle("U16", (1, 40)), [raw]))
    else:
        writer.add(*place, raw)
writer.finish({})
`;

it.each(["narrow", "wide"])("reads an archive whose sizes are in %s fields", async (fields) => {
  const dir = await temporaryFolder();
  await execa(findPython(), ["-c", WRITE, dir, fields], { cwd: SHIM });
  const { tensors } = await readDistMetadata(dir);
  expect(tensors).toMatchObject([{ key: "w", dtype: "U16", shape: [2, 40] }]);
  const second = await readView(dir, tensors, { key: "w", index: [1] });
  expect([...second]).toEqual(Array.from({ length: 80 }, (_, i) => i + 1));
});

it("both readers know the same classes", async () => {
  const code =
    "import json, prunebridge_shim.slicing.torch_dist_names as n; print(json.dumps([*map(sorted, (n.METADATA_CLASSES, n.TENSOR_CLASSES, n.COMMON_CLASSES))]))";
  const { stdout } = await execa(findPython(), ["-c", code], { cwd: SHIM });
  expect([METADATA_CLASSES, TENSOR_CLASSES, COMMON_CLASSES].map((known) => [...known].sort())).toEqual(JSON.parse(stdout));
});
