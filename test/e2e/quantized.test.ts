// Quantised checkpoints: what the child's tensors stand for is what the parent's stood for, cut.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readHeader, readTensorBytes } from "../../src/checkpoint/safetensors.js";
import type { NamedTensor } from "../../src/checkpoint/writeSafetensors.js";
import { Bridge, inspect, plan, prune, type RankBy, readParent, type ScoreFile, slice, verify } from "../../src/index.js";
import type { LayoutName } from "../../src/policy/families/table.js";
import { asFloat32 } from "../../src/tensor.js";
import { type Config, plantedScores, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { everyAxis, randomScores } from "../fixtures/cutting.js";
import { TINY } from "../fixtures/families.js";
import { type Format, fp8, mxfp4, quantizedTensors, writeTensors } from "../fixtures/quantized.js";

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

const block8 = fp8([8, 8], { quantization_config: { quant_method: "fp8", fmt: "e4m3", weight_block_size: [8, 8] } }, "_scale_inv");
const compressed = (strategy: string, extra: Config = {}): Config => ({
  quantization_config: {
    quant_method: "compressed-tensors",
    format: "float-quantized",
    ignore: ["lm_head"],
    kv_cache_scheme: null,
    config_groups: { group_0: { targets: ["Linear"], weights: { num_bits: 8, type: "float", symmetric: true, strategy, ...extra } } },
  },
});
const perChannel = fp8("channel", compressed("channel"));
const OSS = { ...TINY.gptOss, hidden_size: 64, intermediate_size: 96 };

/** Planted importances: whole blocks of channels win, other ones in each layer and expert. */
function inBlocks(config: Config, size: number, wins: (name: string) => readonly number[]): RankBy {
  const tensors = plantedScores(config, (name, i) => 1 + Number(wins(name).includes(Math.floor(i / size))));
  const accumulators = new Map(tensors.map((tensor) => [tensor.name, { shape: tensor.shape, data: asFloat32(tensor) }]));
  return { scores: { accumulators, fingerprint: undefined, provenance: {} } satisfies ScoreFile, path: "planted" };
}

async function readTensors(dir: string): Promise<NamedTensor[]> {
  const header = await readHeader(join(dir, "model.safetensors"));
  return Promise.all(header.tensors.map(async (tensor) => ({ ...tensor, data: await readTensorBytes(header, tensor) })));
}

function byName(tensors: readonly NamedTensor[]): Map<string, unknown> {
  return new Map(tensors.map(({ name, dtype, shape, data }) => [name, { dtype, shape, bits: Buffer.from(data).toString("base64") }]));
}

interface Cut {
  readonly what: string;
  readonly config: Config;
  readonly format: Format;
  readonly target: Readonly<Record<string, number>>;
  readonly rankBy?: RankBy;
  readonly layout?: LayoutName;
}

const odd = { rankBy: { scores: randomScores(TINY.llama, 3), path: "planted" } } as const;
const CUTS: Cut[] = [
  {
    what: "layers, groups and heads of fp8 in blocks",
    config: TINY.llama,
    format: block8,
    target: { num_layers: 2, num_query_groups: 1 },
    ...odd,
  },
  { what: "heads that fill blocks", config: TINY.llama, format: block8, target: { num_attention_heads: 2 }, ...odd },
  { what: "the first channels, in whole blocks", config: TINY.llama, format: block8, target: { hidden_size: 24, ffn_hidden_size: 40 } },
  {
    what: "whole blocks, the last of which is short",
    config: TINY.llama,
    format: block8,
    target: { ffn_hidden_size: 20 },
    rankBy: inBlocks(TINY.llama, 8, (name) => (name.includes("layers.1") ? [1, 2, 5] : [0, 4, 5])),
  },
  {
    what: "experts and whole blocks of each",
    config: { ...TINY.qwen3Moe, moe_intermediate_size: 24 },
    format: block8,
    target: { num_moe_experts: 3, moe_ffn_hidden_size: 16 },
    rankBy: inBlocks({ ...TINY.qwen3Moe, moe_intermediate_size: 24 }, 8, (name) => [
      Number(name.at(-1)) % 3,
      2 - (Number(name.at(-1)) % 2),
    ]),
  },
  {
    what: "packed experts and whole blocks of each",
    config: { ...TINY.qwen3Moe, moe_intermediate_size: 24 },
    format: block8,
    layout: "huggingface_packed",
    target: { num_moe_experts: 3, moe_ffn_hidden_size: 16 },
    rankBy: inBlocks({ ...TINY.qwen3Moe, moe_intermediate_size: 24 }, 8, (name) => [
      Number(name.at(-1)) % 3,
      2 - (Number(name.at(-1)) % 2),
    ]),
  },
  { what: "any axis of fp8 by channels", config: TINY.llama, format: perChannel, target: everyAxis(TINY.llama), ...odd },
  {
    what: "any axis of fp8 by matrices, with scales of inputs",
    config: TINY.llama,
    format: fp8("tensor", { quantization_config: { quant_method: "fp8", activation_scheme: "static" } }),
    target: everyAxis(TINY.llama),
    ...odd,
  },
  {
    what: "any axis of fp8 by matrices, whose scales have no axis",
    config: TINY.llama,
    format: fp8("tensor", compressed("tensor"), "_scale", []),
    target: everyAxis(TINY.llama),
    ...odd,
  },
  {
    what: "any axis of fbgemm's fp8",
    config: TINY.llama,
    format: { ...perChannel, config: { quantization_config: { quant_method: "fbgemm_fp8" } } },
    target: everyAxis(TINY.llama),
    ...odd,
  },
  {
    what: "compressed-tensors in blocks",
    config: TINY.llama,
    format: fp8([8, 4], compressed("block", { block_structure: [8, 4] })),
    target: { hidden_size: 8 },
  },
  {
    what: "layers and experts of MXFP4",
    config: OSS,
    format: mxfp4,
    target: { num_layers: 3, num_moe_experts: 2 },
    rankBy: { scores: randomScores(OSS, 5), path: "planted" },
  },
  { what: "the first channels of MXFP4", config: OSS, format: mxfp4, target: { hidden_size: 32, moe_ffn_hidden_size: 64 } },
  {
    what: "whole blocks of each expert of MXFP4",
    config: OSS,
    format: mxfp4,
    target: { num_moe_experts: 3, moe_ffn_hidden_size: 32 },
    rankBy: inBlocks(OSS, 32, (name) => [Number(name.at(-1)) % 3]),
  },
];

describe("a quantised checkpoint", () => {
  it.each(CUTS)("cut in $what stands for its parent, cut", async ({ config, format, target, rankBy = "position", layout }) => {
    const dir = await temporaryFolder();
    const stored = quantizedTensors(config, format, layout);
    const parent = await readParent(await writeTensors(join(dir, "parent"), { ...config, ...format.config }, stored));
    const plain = await readParent(await writeTensors(join(dir, "plain"), config, format.decode(stored)));
    expect(parent.matched?.layout).toBe(plain.matched?.layout);
    const made = plan(parent, target, rankBy);
    const { fingerprint: _, ...decided } = made;
    expect(plan(plain, target, rankBy)).toMatchObject({ kept: decided.kept, parent: decided.parent, child: decided.child });

    await slice(bridge, parent, made, join(dir, "child"));
    await slice(bridge, plain, { ...plan(plain, target, rankBy) }, join(dir, "expected"));
    await verify(join(dir, "child"), { full: true });
    const found = await readTensors(join(dir, "child"));
    expect(found.length).toBeGreaterThan((await readTensors(join(dir, "expected"))).length);
    expect(byName(format.decode(found))).toEqual(byName(await readTensors(join(dir, "expected"))));
  });

  it("renumbers the modules that its config leaves unquantised", async () => {
    const dir = await temporaryFolder();
    const skipped = ["lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj", "model.layers.3.mlp.gate_proj"];
    const format = {
      ...block8,
      takes: (tensor: NamedTensor) => block8.takes(tensor) && !skipped.includes(tensor.name.replace(".weight", "")),
    };
    const quantization = { quant_method: "fp8", weight_block_size: [8, 8], modules_to_not_convert: skipped };
    const config = { ...TINY.llama, quantization_config: quantization };
    const parent = await readParent(await writeTensors(join(dir, "parent"), config, quantizedTensors(config, format)));
    const scores = inBlocks(TINY.llama, 1, (name) => (name === "layer_scores" ? [1, 3] : []));
    await slice(bridge, parent, plan(parent, { num_layers: 2 }, scores), join(dir, "child"));
    const child = JSON.parse(await readFile(join(dir, "child", "config.json"), "utf8"));
    expect(child.quantization_config).toEqual({
      ...quantization,
      modules_to_not_convert: ["lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.gate_proj"],
    });
    await verify(join(dir, "child"), { full: true });
  });

  it("can be cut by the scores of its unquantised parent, and is not run", async () => {
    const dir = await temporaryFolder();
    const config = { ...TINY.llama, ...block8.config };
    const folder = await writeTensors(join(dir, "parent"), config, quantizedTensors(config, block8));
    expect((await inspect(folder)).quantization).toBe("fp8 with one scale for each block of 8 x 8");
    await using model = await bridge.open(folder);
    await expect(model.load()).rejects.toMatchObject({
      code: "UNSUPPORTED_QUANTIZATION",
      detail: expect.stringMatching(/is quantised \(fp8 with one scale for each block of 8 x 8\)/),
      hint: expect.stringMatching(/score its unquantised parent, plan with these scores for .*config\.json, and slice/),
    });
    const unquantised = await readParent(await writeCheckpoint(join(dir, "plain"), TINY.llama));
    const scores = { ...randomScores(TINY.llama, 1), fingerprint: unquantised.fingerprint };
    const made = plan(await readParent(join(folder, "config.json")), { num_layers: 3 }, { scores, path: "scores" });
    await slice(bridge, model.parent, made, join(dir, "child"));
    await verify(join(dir, "child"), { full: true });
  });

  it.each([
    [
      { ffn_hidden_size: 24 },
      /mlp\.\w+_proj\.weight_scale_inv has one scale for each block of 8 along axis \d, ffn, and the cut keeps a block in part/,
    ],
    [{ hidden_size: 24 }, /along axis \d, hidden, and/],
    [{ ffn_hidden_size: 20 }, /along axis \d, ffn, and/],
  ])("refuses %j by importance, and says what can be cut", async (target, says) => {
    const config = { ...TINY.llama, ...block8.config };
    const parent = await readParent(await writeTensors(await temporaryFolder(), config, quantizedTensors(config, block8)));
    const refused = {
      code: "UNSUPPORTED_QUANTIZATION",
      detail: expect.stringMatching(says),
      hint: expect.stringMatching(
        /^here num_layers, num_attention_heads, num_query_groups can be cut to any legal size; hidden_size, ffn_hidden_size only in whole blocks/,
      ),
    };
    expect(() => plan(parent, target, odd.rankBy)).toThrow(expect.objectContaining(refused));
  });

  it("is refused by prune() before anything is written where whole blocks would be torn", async () => {
    const dir = await temporaryFolder();
    const config = { ...TINY.llama, ...block8.config };
    await using model = await bridge.open(await writeTensors(join(dir, "parent"), config, quantizedTensors(config, block8)));
    const checkpoint = join(dir, "run");
    const constraints = { export_config: { ffn_hidden_size: 20 } };
    const pruned = prune(model, [["mcore_gpt_minitron", { skip_sorting: true }]], constraints, null, { checkpoint });
    await expect(pruned).rejects.toMatchObject({ code: "UNSUPPORTED_QUANTIZATION" });
    expect(model.plan).toBeUndefined();
    await expect(readFile(join(checkpoint, "plan.json"))).rejects.toThrow("ENOENT");
  });
});
