import { describe, expect, it } from "vitest";
import { readArchitecture } from "../../../src/policy/architecture.js";
import { countParams } from "../../../src/policy/cost.js";
import { matchTensors } from "../../../src/policy/matchTensors.js";
import { renumberModules } from "../../../src/policy/quantizedModules.js";
import { costsOf } from "../../../src/policy/search/search.js";
import type { Config } from "../../fixtures/checkpoints.js";
import { TINY } from "../../fixtures/families.js";
import { type Format, fp8, mxfp4, quantizedTensors } from "../../fixtures/quantized.js";

const FP8 = { quant_method: "fp8", weight_block_size: [8, 8] };
const block8 = fp8([8, 8], { quantization_config: FP8 }, "_scale_inv");
const OSS = { ...TINY.gptOss, hidden_size: 64, intermediate_size: 96 };

type Stored = { name: string; dtype: string; shape: readonly number[] };

function match(config: Config, format: Format, change: (all: Stored[]) => Stored[] = (all) => all): unknown {
  const stored = quantizedTensors(config, format).map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  return matchTensors(readArchitecture({ ...config, ...format.config }), change(stored));
}

const rename = (from: string, to: string) => (all: Stored[]) => all.map((tensor) => ({ ...tensor, name: tensor.name.replace(from, to) }));
const without = (name: RegExp) => (all: Stored[]) => all.filter((tensor) => !name.test(tensor.name));
const storedAs = (name: RegExp, dtype: string) => (all: Stored[]) =>
  all.map((tensor) => (name.test(tensor.name) ? { ...tensor, dtype } : tensor));

describe("readQuantization", () => {
  const weights = { num_bits: 8, type: "float", strategy: "channel" };
  const compressed = { quant_method: "compressed-tensors", format: "float-quantized", config_groups: { group_0: { weights } } };

  it.each([
    ...["gptq", "awq", "hqq", "aqlm", "quanto", "torchao", "mxfp4", "something new"].map((method): [Config, RegExp] => [
      { quant_method: method, bits: 4 },
      new RegExp(`^config.json: the weights are quantised by ${method}, in a layout that cannot be cut$`),
    ]),
    [{ load_in_4bit: true, bnb_4bit_quant_type: "nf4" }, /quantised by bitsandbytes,/],
    [{ bits: 4 }, /quantised by a method that it does not name,/],
    [{ ...FP8, fmt: "e5m2" }, /a variant of fp8 that cannot be cut: .*fmt/],
    [{ ...FP8, expert_dtype: "fp4" }, /expert_dtype/],
    [{ ...FP8, weight_block_size: [128] }, /weight_block_size/],
    [{ ...compressed, format: "pack-quantized" }, /a variant of compressed-tensors that cannot be cut: .*format/],
    [{ ...compressed, kv_cache_scheme: { num_bits: 8 } }, /kv_cache_scheme/],
    [{ ...compressed, sparsity_config: { format: "sparse-24-bitmask" } }, /sparsity_config/],
    [{ ...compressed, config_groups: { a: { weights: { ...weights, strategy: "group" } } } }, /strategy/],
    [
      { ...compressed, config_groups: { a: { weights }, b: { weights: { ...weights, strategy: "tensor" } } } },
      /2 groups of unlike weights/,
    ],
    [{ ...compressed, config_groups: { a: { weights: { ...weights, strategy: "block" } } } }, /block_structure is undefined/],
  ])("refuses %j", (stated, says) => {
    for (const key of ["quantization_config", "compression_config"]) {
      expect(() => readArchitecture({ ...TINY.llama, [key]: stated })).toThrow(
        expect.objectContaining({
          code: "UNSUPPORTED_QUANTIZATION",
          detail: expect.stringMatching(says),
          hint: "dequantise the checkpoint first, or prune its unquantised parent and quantise the child",
        }),
      );
    }
  });

  it.each([null, undefined])("takes %j for none", (stated) => {
    expect(readArchitecture({ ...TINY.llama, quantization_config: stated }).quantization).toBeUndefined();
  });
});

describe("matchTensors, of quantised weights", () => {
  const DOWN = /layers\.1\.mlp\.down_proj\.weight$/;

  it.each<[string, Config, Format, (all: Stored[]) => Stored[], RegExp]>([
    [
      "a weight without its scales",
      TINY.llama,
      block8,
      without(/layers\.1\.mlp\.down_proj\.weight_scale/),
      /MISSING_TENSOR.*down_proj.weight_scale/,
    ],
    [
      "scales of a weight in full precision",
      TINY.llama,
      block8,
      storedAs(DOWN, "BF16"),
      /BAD_TENSOR.*down_proj.weight is stored as BF16; .* it is F8_E4M3/,
    ],
    [
      "scales as whole numbers",
      TINY.llama,
      block8,
      storedAs(/down_proj.weight_scale_inv$/, "I32"),
      /BAD_TENSOR.*weight_scale_inv is stored as I32/,
    ],
    ["no weight that is quantised", TINY.llama, { ...block8, takes: () => false }, (all) => all, /BAD_CONFIG.*no weight is stored so/],
    [
      "scales under another method's name",
      TINY.llama,
      block8,
      rename("weight_scale_inv", "weight_scale"),
      /UNSUPPORTED_QUANTIZATION.*does not account for/,
    ],
    [
      "scales of a cached key",
      TINY.llama,
      block8,
      rename("q_proj.weight_scale_inv", "k_scale"),
      /UNSUPPORTED_QUANTIZATION.*k_scale looks like/,
    ],
    [
      "blocks of MXFP4 without exponents",
      OSS,
      mxfp4,
      without(/layers\.2\.mlp\.experts\.down_proj_scales/),
      /MISSING_TENSOR.*down_proj_scales, to which/,
    ],
    [
      "a matrix beside its blocks",
      OSS,
      mxfp4,
      (all) => [...all, { name: "model.layers.2.mlp.experts.down_proj", dtype: "BF16", shape: [4, 96, 64] }],
      /UNKNOWN_TENSOR.*layers.2.mlp.experts.down_proj is there both as it is and in packed form/,
    ],
    [
      "neither blocks nor a matrix",
      OSS,
      mxfp4,
      without(/layers\.2\.mlp\.experts\.down_proj_/),
      /MISSING_TENSOR.*down_proj, which gpt_oss models have/,
    ],
  ])("refuses %s", (_what, config, format, change, says) => {
    expect(() => match(config, format, change)).toThrow(says);
  });

  it("names the shape that scales should have", () => {
    const wider = (all: Stored[]): Stored[] =>
      all.map((tensor) => (/down_proj.weight_scale_inv$/.test(tensor.name) ? { ...tensor, shape: [4, 5] } : tensor));
    expect(() => match(TINY.llama, block8, wider)).toThrow(
      /down_proj.weight_scale_inv has shape \[4, 5\], but config.json makes \[\(hidden\) \/ 8, \(ffn\) \/ 8\] = \[4, 6\]/,
    );
  });

  it.each([
    ["bitsandbytes", "weight.absmax"],
    ["bitsandbytes", "weight.quant_state.bitsandbytes__nf4"],
    ["bitsandbytes", "SCB"],
    ["gptq or awq", "qweight"],
    ["quanto", "weight._data"],
    ["hqq", "W_q"],
    ["aqlm", "codebooks"],
  ])("knows %s by a tensor %s, whatever config.json says", (method, name) => {
    const added = (all: Stored[]): Stored[] => [...all, { name: `model.layers.0.mlp.up_proj.${name}`, dtype: "U8", shape: [4] }];
    const plain = { ...block8, config: {}, takes: () => false };
    expect(() => match(TINY.llama, plain, added)).toThrow(
      new RegExp(`UNSUPPORTED_QUANTIZATION.*quantised by ${method}, and config.json has no`),
    );
  });
});

it("counts no scales: a quantised network has the parameters and the memory of its parent", () => {
  const [plain, quantised] = [TINY.llama, { ...TINY.llama, quantization_config: FP8 }].map((config) => readArchitecture(config));
  if (!plain || !quantised) throw new Error("two configs make two architectures");
  expect(countParams(quantised)).toBe(countParams(plain));
  const workload = { seqLength: 16, batchSize: 1 };
  expect(costsOf(quantised, workload)).toEqual(costsOf(plain, workload));
});

describe("renumberModules", () => {
  it("drops and renumbers layers in every list, and leaves other names", () => {
    const stated = {
      ignore: ["lm_head", "model.layers.0.mlp", "model.layers.2", "model.layers.10.mlp"],
      groups: [{ targets: ["Linear"] }],
      n: 1,
    };
    expect(renumberModules(stated, [0, 10], ["layers"])).toEqual({
      ignore: ["lm_head", "model.layers.0.mlp", "model.layers.1.mlp"],
      groups: [{ targets: ["Linear"] }],
      n: 1,
    });
    expect(renumberModules({ ignore: ["re:.*self_attn.*", "model.layers.*.mlp"] }, [1], ["layers", "experts"])).toEqual({
      ignore: ["re:.*self_attn.*", "model.layers.*.mlp"],
    });
  });

  it("refuses what would mean other modules in the child", () => {
    const pattern = { ignore: ["re:model\\.layers\\.0\\..*"] };
    expect(() => renumberModules(pattern, [1], ["layers"])).toThrow(/picks layers by the pattern/);
    expect(renumberModules(pattern, [0, 1], ["experts"])).toEqual(pattern);
    expect(() => renumberModules({ ignore: ["model.layers.0.mlp.experts.3.up_proj"] }, [0], ["experts"])).toThrow(
      /names the single expert/,
    );
  });
});
