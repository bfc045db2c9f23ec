import { chmod, mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { findPython } from "../../src/shim/python.js";
import { type Case, changeConfig, expectRefused as expectRefusedOf, type GoodInput, makeGoodInput } from "../fixtures/badInput.js";
import { type Config, TINY_LLAMA, tensorsOf, writeCheckpoint, writeScores, writeTokens } from "../fixtures/checkpoints.js";
import { runCli } from "../fixtures/cli.js";

let good: GoodInput;
let dir: string;
let parent: string;

beforeEach(async () => {
  good = await makeGoodInput();
  ({ dir, parent } = good);
});

const expectRefused = (row: Case): Promise<void> => expectRefusedOf(good, row);
const configured = (change: Config) => (): Promise<void> => changeConfig(good, change);

/** Rewrites the header of the parent's only file, leaving its data. */
async function rewriteHeader(
  change: (header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>) => void,
): Promise<void> {
  const file = await readFile(good.weights);
  const length = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.subarray(8, 8 + length).toString());
  change(header);
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  await writeFile(good.weights, Buffer.concat([size, json, file.subarray(8 + length)]));
}

describe("a checkpoint that is wrong", () => {
  it("is missing", () => expectRefused({ code: "PATH_NOT_FOUND", says: /nowhere/, args: { "<dir>": "/nowhere/at-all" } }));

  it("has no config", async () => {
    const empty = join(dir, "empty");
    await mkdir(empty);
    await expectRefused({ code: "NOT_A_CHECKPOINT", says: /has no config.json/, args: { "<dir>": empty } });
  });

  it("has a config and no weights", async () => {
    const bare = join(dir, "bare");
    await mkdir(bare);
    await writeFile(join(bare, "config.json"), JSON.stringify(TINY_LLAMA));
    await expectRefused({ code: "NOT_A_CHECKPOINT", says: /has no weights/, args: { "<dir>": bare } });
  });

  it("has an unknown architecture", () =>
    expectRefused({ code: "UNKNOWN_ARCHITECTURE", says: /LlamoForCausalLM/, spoil: configured({ architectures: ["LlamoForCausalLM"] }) }));

  it("has heads that do not divide into groups", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /num_attention_heads 6 does not divide into 4 groups/,
      spoil: configured({ num_key_value_heads: 4 }),
    }));

  it("has an index that names a missing shard", async () => {
    const sharded = await writeCheckpoint(join(dir, "sharded"), TINY_LLAMA, { files: 2 });
    const index = join(sharded, "model.safetensors.index.json");
    await writeFile(index, (await readFile(index, "utf8")).replaceAll("model-00002-of", "model-00009-of"));
    await expectRefused({ code: "BAD_INDEX", says: /names the shard model-00009-of-00002.safetensors/, args: { "<dir>": sharded } });
  });

  it("has a truncated shard", () =>
    expectRefused({ code: "BAD_SAFETENSORS", says: /but its header needs/, spoil: () => truncate(good.weights, 9000) }));

  it("has a shard that ends within its header", () =>
    expectRefused({ code: "BAD_SAFETENSORS", says: /is only 100 bytes long/, spoil: () => truncate(good.weights, 100) }));

  it("has a header that lies about offsets", () =>
    expectRefused({
      code: "BAD_SAFETENSORS",
      says: /gives model.norm.weight 92 bytes, but F32 \[24\] takes 96/,
      spoil: () =>
        rewriteHeader(
          (header) => void header["model.norm.weight"]?.data_offsets.splice(1, 1, (header["model.norm.weight"]?.data_offsets[1] ?? 0) - 4),
        ),
    }));

  it("has tensors that overlap", () =>
    expectRefused({
      code: "BAD_SAFETENSORS",
      says: /overlap/,
      spoil: () =>
        rewriteHeader((header) => {
          const norm = header["model.norm.weight"];
          if (norm) norm.data_offsets = norm.data_offsets.map((offset) => offset - 4);
        }),
    }));

  it("has a gigantic header", () =>
    expectRefused({
      code: "BAD_SAFETENSORS",
      says: /over the cap/,
      spoil: async () => {
        const file = await readFile(good.weights);
        file.writeBigUInt64LE(2n ** 62n);
        await writeFile(good.weights, file);
      },
    }));

  it("has a tensor that the family does not know", () =>
    expectRefused({
      code: "UNKNOWN_TENSOR",
      says: /model.layers.0.mlp.gate_proj.lora_A/,
      spoil: async () => {
        const extra = { name: "model.layers.0.mlp.gate_proj.lora_A", dtype: "F32" as const, shape: [2], data: new Uint8Array(8) };
        await writeFile(good.weights, encodeSafetensors([...tensorsOf(TINY_LLAMA), extra], {}));
      },
    }));

  it("has a tensor of the wrong shape", () =>
    expectRefused({
      code: "BAD_TENSOR",
      says: /has shape \[40, 24\], but config.json makes \[ffn, hidden\] = \[48, 24\]/,
      spoil: configured({ intermediate_size: 48 }),
    }));

  it("lacks a tensor", () =>
    expectRefused({
      code: "MISSING_TENSOR",
      says: /no model.norm.weight/,
      spoil: async () =>
        writeFile(
          good.weights,
          encodeSafetensors(
            tensorsOf(TINY_LLAMA).filter(({ name }) => name !== "model.norm.weight"),
            {},
          ),
        ),
    }));
});

describe("bounds that are wrong", () => {
  async function expectUnmet(flags: readonly string[], code: string, says: RegExp, hints: RegExp): Promise<void> {
    const result = await runCli(["search", join(parent, "config.json"), "--hidden-size-divisor", "4", ...flags, "--json"]);
    expect(result.json["error"], result.stderr).toMatchObject({
      code,
      message: expect.stringMatching(says),
      hint: expect.stringMatching(hints),
    });
    expect(result.exitCode).toBe(2);
  }

  it("lie below the smallest subnet", () =>
    expectUnmet(
      ["--params", "10"],
      "BAD_CONSTRAINTS",
      /params <= 10 cannot be met: the smallest subnet of the space has [\d,]+/,
      /raise maxWidthPruning/,
    ));
  it("cannot be met together with what is skipped", () =>
    expectUnmet(
      ["--params", "60%", "--hparams-to-skip", "hidden_size"],
      "BAD_CONSTRAINTS",
      /cannot be met/,
      /search more hyperparameters/,
    ));
  it("are none", () => expectUnmet([], "BAD_CONSTRAINTS", /./, /params/));
  it("are above the parent's own", () =>
    expectUnmet(["--params", "130%"], "BAD_CONSTRAINTS", /params "130%" is no upper bound/, /up to "100%"/));
  it("skip what is not searched", () =>
    expectUnmet(
      ["--params", "60%", "--hparams-to-skip", "num_query_groups"],
      "BAD_OPTION",
      /num_query_groups, which is not searched/,
      /searched are num_layers/,
    ));
});

describe("a target that is wrong", () => {
  const exporting = (config: string, says: RegExp): Promise<void> =>
    expectRefused({ code: "BAD_EXPORT_CONFIG", says, args: { "--export-config": config } });

  it("has heads that do not divide into the groups kept", () =>
    exporting('{"num_attention_heads": 4}', /4 is not a multiple of the 3 query groups kept; the nearest legal values are 3 and 6/));
  it("is above the parent's", () => exporting('{"ffn_hidden_size": 41}', /ffn_hidden_size 41 is not an integer from 1 to 40/));
  it("is zero", () => exporting('{"hidden_size": 0}', /hidden_size 0 is not an integer from 1 to 24/));
  it("is negative", () => exporting('{"num_layers": -1}', /num_layers -1 is not an integer from 1 to 3/));
  it("is fractional", () => exporting('{"hidden_size": 12.5}', /hidden_size 12.5 is not an integer/));
  it("is a string", () => exporting('{"hidden_size": "12"}', /hidden_size "12" is not an integer/));
  it("is empty", () => exporting("{}", /export_config is empty/));
  it("is not JSON", () => exporting("{hidden_size: 12}", /not JSON/));
  it("names an unknown hyperparameter", async () => {
    const result = await runCli([
      "prune",
      parent,
      ...Object.entries({ ...good.flags, "--export-config": '{"ffn_hiden_size": 16}' }).flat(),
      "--json",
    ]);
    expect(result.exitCode).toBe(2);
    expect(result.json["error"]).toMatchObject({
      code: "BAD_EXPORT_CONFIG",
      hint: expect.stringContaining("did you mean ffn_hidden_size?"),
    });
  });
  it("exists and is not empty", async () => {
    await mkdir(join(dir, "child"));
    await writeFile(join(dir, "child", "notes.txt"), "mine");
    await expectRefused({ code: "TARGET_EXISTS", says: /exists and is not empty/ });
    expect(await readFile(join(dir, "child", "notes.txt"), "utf8")).toBe("mine");
  });
  it("is the parent", () =>
    expectRefused({ code: "TARGET_EXISTS", says: /is the parent checkpoint itself/, args: { "--out": join(dir, "x", "..", "parent") } }));
  it("lies where no folder can be", async () => {
    await writeFile(join(dir, "notes.txt"), "mine");
    await expectRefused({ code: "PATH_DENIED", says: /notes.txt/, args: { "--out": join(dir, "notes.txt", "child") } });
  });
  it("asks for files of another folder without a job", () =>
    expectRefused({ code: "BAD_OPTION", says: /--like is for the model of a job/, args: { "--like": parent } }));
  it("names a tokenizer beside the checkpoint's own", () =>
    expectRefused({ code: "BAD_OPTION", says: /--tokenizer is for the model of a job/, args: { "--tokenizer": parent } }));
  it("is in a mode for other networks", () =>
    expectRefused({ code: "BAD_MODE", says: /fastnas prunes networks that Python code builds/, args: { "--mode": "fastnas" } }));
});

describe("calibration that is wrong", () => {
  it("has NaN in its scores", async () => {
    const scores = await writeScores(join(dir, "scores.safetensors"), TINY_LLAMA, (name, i) =>
      name === "decoder.layers.1.mlp" && i === 7 ? Number.NaN : i,
    );
    await expectRefused({ code: "BAD_SCORES", says: /decoder.layers.1.mlp\[7\] is NaN/, args: { "--scores": scores, "--data": "" } });
  });
  it("has scores of another model", async () => {
    const scores = await writeScores(join(dir, "scores.safetensors"), { ...TINY_LLAMA, intermediate_size: 48 }, (_, i) => i);
    await expectRefused({ code: "BAD_SCORES", says: /has 48 scores where the model has 40/, args: { "--scores": scores, "--data": "" } });
  });
  it("has scores of another model under bounds, which is found before a shim is started", async () => {
    const scores = await writeScores(join(dir, "scores.safetensors"), { ...TINY_LLAMA, hidden_size: 48 }, (_, i) => i);
    const args = { "--scores": scores, "--data": "", "--export-config": "", "--params": "80%", "--hidden-size-divisor": "4" };
    await expectRefused({
      code: "BAD_SCORES",
      says: /has 48 scores where the model has 24/,
      args,
      env: { PRUNEBRIDGE_PYTHON: "/no-such-python" },
    });
  });
  it("has token ids outside of the vocabulary", async () => {
    const data = await writeTokens(join(dir, "bad.safetensors"), [2, 8], (i) => i * 5);
    await expectRefused({ code: "BAD_DATA", says: /token id 50 in batch 1 is outside of the vocabulary of 50/, args: { "--data": data } });
  });
  it("is an empty file", async () => {
    await writeFile(join(dir, "empty.jsonl"), "");
    await expectRefused({ code: "BAD_DATA", says: /is empty/, args: { "--data": join(dir, "empty.jsonl") } });
  });
  it("is a file of empty texts", async () => {
    await writeFile(join(dir, "blank.jsonl"), '{"text": ""}\n{"text": " "}\n');
    await expectRefused({ code: "BAD_DATA", says: /holds no text/, args: { "--data": join(dir, "blank.jsonl") } });
  });
  it("is a file that is not there", () =>
    expectRefused({ code: "PATH_NOT_FOUND", says: /does not exist/, args: { "--data": join(dir, "nothing.txt") } }));
  it("is neither given nor stored", () => expectRefused({ code: "BAD_OPTION", says: /needs --data/, args: { "--data": "" } }));
});

describe("an interpreter that is wrong", () => {
  it("is not there", () =>
    expectRefused({ code: "SHIM_START_FAILED", says: /no-such-python/, env: { PRUNEBRIDGE_PYTHON: "/no-such-python" } }));

  it("lacks torch", async () => {
    // A module of that name that cannot be imported is what a broken install looks like; none at all, what a bare one does.
    const python = join(dir, "python-without-torch");
    await writeFile(
      python,
      `#!/bin/sh\nexec "${findPython()}" -c 'import importlib.util as u, runpy, sys
real = u.find_spec
u.find_spec = lambda name, package=None: None if name in ("torch", "transformers") else real(name, package)
sys.argv = ["prunebridge_shim", *sys.argv[3:]]
runpy.run_module("prunebridge_shim", run_name="__main__")' "$@"\n`,
    );
    await chmod(python, 0o755);
    await expectRefused({ code: "MISSING_DEPENDENCY", says: /torch/, env: { PRUNEBRIDGE_PYTHON: python } });
  });

  it("dies while the shim is loading", async () => {
    const python = join(dir, "python-that-dies");
    await writeFile(python, "#!/bin/sh\necho 'libcuda is broken' >&2\nkill -9 $$\n");
    await chmod(python, 0o755);
    await expectRefused({ code: "SHIM_START_FAILED", says: /SIGKILL[\s\S]*libcuda is broken/, env: { PRUNEBRIDGE_PYTHON: python } });
  });

  it("dies while the model is loading", async () => {
    const python = join(dir, "python-that-dies-later");
    await writeFile(
      python,
      `#!/bin/sh\nexec "${findPython()}" -c 'import os, runpy, signal, sys
import transformers
def die(*args, **kwargs):
    print("loading shards", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
transformers.PreTrainedModel.from_pretrained = die
sys.argv = ["prunebridge_shim", *sys.argv[3:]]
runpy.run_module("prunebridge_shim", run_name="__main__")' "$@"\n`,
    );
    await chmod(python, 0o755);
    await expectRefused({ code: "SHIM_LOAD_FAILED", says: /SIGKILL[\s\S]*loading shards/, env: { PRUNEBRIDGE_PYTHON: python } });
  });
});
