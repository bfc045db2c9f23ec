import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../../../src/checkpoint/writeSafetensors.js";
import { inspect } from "../../../../src/index.js";
import { temporaryFolder, tensorsOf } from "../../../fixtures/checkpoints.js";
import { MEGATRON } from "../../../fixtures/families.js";

const BACKEND = JSON.stringify({ sharded_backend: "torch_dist", sharded_backend_version: 1 });

async function folderOf(files: Readonly<Record<string, string>>): Promise<string> {
  const dir = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), content);
  }
  return dir;
}

describe("a folder that is half there", () => {
  it.each<[what: string, files: Record<string, string>, message: RegExp]>([
    ["no .metadata", { "__0_0.distcp": "", "common.pt": "" }, /has no \.metadata, which is written when all ranks have saved/],
    ["no metadata.json", { ".metadata": "", "__0_0.distcp": "" }, /has no metadata\.json, which is written last/],
    ["nothing that states sizes", { ".metadata": "", "metadata.json": BACKEND }, /has no common\.pt, nor run_config\.yaml/],
    ["no tracker", { "iter_0000010/.metadata": "" }, /has no latest_checkpointed_iteration\.txt.*\n.*iter_0000010/],
    ["Bridge's tracker alone", { "latest_train_state.pt": "" }, /has no latest_checkpointed_iteration\.txt/],
    [
      "a tracker of nothing",
      { "latest_checkpointed_iteration.txt": "7", "iter_0000010/x": "" },
      /names iter_0000007.*\n.*there is iter_0000010/,
    ],
    [
      "a tracker of no number",
      { "latest_checkpointed_iteration.txt": "../x" },
      /states "\.\.\/x", which is neither an iteration nor "release"/,
    ],
    ["NeMo without context/", { "weights/.metadata": "" }, /has weights\/ but no context\//],
    ["NeMo without weights/", { "context/model.yaml": "" }, /has context\/ but no weights\//],
    [
      "NeMo with io.json alone",
      { "weights/.metadata": "", "weights/metadata.json": BACKEND, "context/io.json": "{}" },
      /has context\/io\.json, which only NeMo reads, but no context\/model\.yaml/,
    ],
    ["NeMo whose weights are half there", { "weights/common.pt": "", "context/model.yaml": "" }, /weights has no \.metadata/],
  ])("%s", async (_what, files, message) => {
    await expect(inspect(await folderOf(files))).rejects.toThrow(message);
    await expect(inspect(await folderOf(files))).rejects.toThrow(/^\[NOT_A_CHECKPOINT\]/);
  });
});

describe("a format that is not read", () => {
  it.each<[what: string, files: Record<string, string>, message: RegExp]>([
    [
      "one file for each rank",
      { "mp_rank_00/model_optim_rng.pt": "" },
      /holds mp_rank_00: Megatron's older format.*\n.*--ckpt-format torch_dist/,
    ],
    [
      "zarr",
      { ".metadata": "", "metadata.json": '{"sharded_backend": "zarr", "sharded_backend_version": 1}' },
      /in "zarr" version 1; torch_dist/,
    ],
    [
      "a later version",
      { ".metadata": "", "metadata.json": '{"sharded_backend": "torch_dist", "sharded_backend_version": 2}' },
      /version 2; torch_dist/,
    ],
    ["neither of the two kinds", { "notes.txt": "" }, /has no config\.json, and nothing of a Megatron or NeMo checkpoint/],
  ])("%s", async (_what, files, message) => {
    await expect(inspect(await folderOf(files))).rejects.toThrow(message);
  });
});

describe("safetensors under Megatron's names", () => {
  const config = MEGATRON.megatronExperts;
  const { architectures: _, ...stated } = config;
  const weights = encodeSafetensors(tensorsOf(config), { format: "pt" });

  it("have their sizes in Megatron-Bridge's run_config.yaml", async () => {
    const dir = await folderOf({ "run_config.yaml": `model: ${JSON.stringify({ _target_: "os.system", ...stated })}\n` });
    await writeFile(join(dir, "model.safetensors"), weights);
    const found = await inspect(dir);
    await writeFile(join(dir, "config.json"), JSON.stringify(config));
    const { fingerprint: _fingerprint, ...same } = await inspect(dir);
    expect(found).toMatchObject(same);
  });

  it("say of the vocabulary and of tied embeddings what the config leaves out", async () => {
    const { vocab_size: _vocabulary, ...rest } = stated;
    const dir = await folderOf({ "run_config.yaml": `model: ${JSON.stringify(rest)}\n` });
    await writeFile(join(dir, "model.safetensors"), weights);
    expect(await inspect(dir)).toMatchObject({ tiedEmbeddings: false, hyperparameters: { vocab_size: 50 } });
    const tied = { ...config, share_embeddings_and_output_weights: true };
    await writeFile(join(dir, "model.safetensors"), encodeSafetensors(tensorsOf(tied), { format: "pt" }));
    expect(await inspect(dir)).toMatchObject({ tiedEmbeddings: true });
  });

  it.each<[what: string, yaml: string, message: RegExp]>([
    ["a network that is no GPT", "model: {multi_latent_attention: true}", /UNKNOWN_ARCHITECTURE.*sets multi_latent_attention/],
    ["no section of the model", "train: {}", /BAD_CONFIG.*has no section "model"/],
    ["a list", "- model", /BAD_CONFIG.*must hold a YAML mapping/],
    ["broken YAML", "model: {", /BAD_CONFIG.*is not YAML/],
    [
      "a field of no plain value",
      "model: {moe_layer_freq: [[1]]}",
      /BAD_CONFIG.*moe_layer_freq is no number, text, switch or list of numbers/,
    ],
    ["a size that is missing", "model: {num_layers: 4}", /BAD_CONFIG.*hidden_size is missing/],
    [
      "aliases within aliases",
      [
        "a: &a [x, x]",
        ...Array.from({ length: 20 }, (_, i) => `b${i}: &b${i} [*${i === 0 ? "a" : `b${i - 1}`}, *${i === 0 ? "a" : `b${i - 1}`}]`),
      ].join("\n"),
      /BAD_CONFIG.*aliases within aliases/,
    ],
  ])("are refused with %s", async (_what, yaml, message) => {
    const dir = await folderOf({ "run_config.yaml": yaml });
    await writeFile(join(dir, "model.safetensors"), weights);
    await expect(inspect(dir)).rejects.toThrow(message);
  });
});
