import { describe, expect, it } from "vitest";
import { type Architecture, readArchitecture } from "../../../src/policy/architecture.js";
import { countActiveParams, countParams } from "../../../src/policy/cost.js";
import { costsOf } from "../../../src/policy/search/search.js";
import type { Config } from "../../fixtures/checkpoints.js";
import {
  dense,
  GEMMA3_1B,
  GPT_OSS_20B,
  hybrid,
  MIXTRAL_8X7B,
  NANO_4B,
  NANO_7B,
  NANO_9B,
  NANO_12B,
  NEMOTRON_H,
  nemotron3,
  QWEN3_30B,
} from "../../fixtures/published.js";

// Published models and what came of pruning them: totals that NVIDIA's tools or the model cards give.
const DENSE: readonly [name: string, config: Config, params: number][] = [
  ["Llama-3.1-8B", dense("Llama", 32, 4096, 14336, 32, 8, 128, 128256), 8_030_261_248],
  ["Llama-3.1-Minitron-4B-Width", dense("Llama", 32, 3072, 9216, 32, 8, 128, 128256), 4_512_746_496],
  ["Llama-3.1-Minitron-4B-Depth", dense("Llama", 16, 4096, 14336, 32, 8, 128, 128256), 4_540_469_248],
  ["Mistral-NeMo-12B", dense("Mistral", 40, 5120, 14336, 32, 8, 128, 131072), 12_247_782_400],
  ["Mistral-NeMo-Minitron-8B", dense("Mistral", 40, 4096, 11520, 32, 8, 128, 131072), 8_414_105_600],
  ["Nemotron-4-15B", dense("Nemotron", 32, 6144, 24576, 48, 8, 128, 256000), 15_628_775_424],
  ["Minitron-8B", dense("Nemotron", 32, 4096, 16384, 48, 8, 128, 256000), 8_271_699_968],
  ["Minitron-4B", dense("Nemotron", 32, 3072, 9216, 24, 8, 128, 256000), 4_190_509_056],
  ["Qwen3-8B", dense("Qwen3", 36, 4096, 12288, 32, 8, 128, 151936), 8_190_735_360],
  ["Qwen3-8B, 24 layers", dense("Qwen3", 24, 4096, 12288, 32, 8, 128, 151936), 5_875_378_176],
  ["Qwen3-8B, narrow", dense("Qwen3", 36, 3584, 9216, 32, 8, 128, 151936), 5_977_809_408],
  ["Qwen3-8B, searched", dense("Qwen3", 30, 3584, 11776, 32, 8, 128, 151936), 5_988_774_912],
  ["Qwen2.5-7B", dense("Qwen2", 28, 3584, 18944, 28, 4, 128, 152064), 7_615_616_512],
  ["Gemma3-1B", GEMMA3_1B, 999_885_952],
  ["Nemotron-H-8B", hybrid(NEMOTRON_H, 4096, 21504, 32, 8, 128, 64), 8_100_852_736],
  ["Nemotron-H-4B", hybrid(NEMOTRON_H, 3072, 12288, 32, 8, 112, 64), 4_489_223_040],
  ["Nemotron-Nano-12B-v2", hybrid(NANO_12B, 5120, 20480, 40, 8, 128, 80), 12_310_001_152],
  ["Nano-9B-v2", hybrid(NANO_9B, 4480, 15680, 40, 8, 128, 80), 8_888_227_328],
  ["Nano-9B-v2 to 7B", hybrid(NANO_7B, 4352, 13824, 40, 8, 120, 80), 6_997_637_824],
  ["Nemotron-3-Nano-4B", hybrid(NANO_4B, 3136, 12544, 40, 8, 96, 80), 3_973_556_832],
];

// Totals of files; active parameters without the buffer of the score correction.
const SPARSE: readonly [name: string, config: Config, params: number, active: number][] = [
  ["Qwen3-30B-A3B", QWEN3_30B, 30_532_122_624, 3_353_032_704],
  ["gpt-oss-20b, with 24 x 64 sinks", GPT_OSS_20B, 20_914_757_184, 4_187_439_168 + 24 * 64],
  ["Mixtral-8x7B", MIXTRAL_8X7B, 46_702_792_704, 12_879_925_248],
  ["Nemotron-3-Nano-30B-A3B", nemotron3(), 31_577_940_288, 3_580_073_408],
  ["Nemotron-3 22B/A3.0B", nemotron3(2304, 64, 64, 104, 1856, 3072), 22_276_867_992, 2_999_647_808],
  ["Nemotron-3 candidate, 20.09B", nemotron3(2688, 56, 48, 96, 1536, 3072), 20_092_821_656 + 23 * 96, 2_999_722_136],
  ["Nemotron-3 candidate, 21.61B", nemotron3(2688, 48, 56, 104, 1536, 3072), 21_612_207_728 + 23 * 104, 2_999_721_584],
  ["Nemotron-3 candidate, 19.28B", nemotron3(2560, 48, 64, 96, 1536, 3712), 19_278_827_248 + 23 * 96, 2_999_684_848],
];

/** The closed forms that a search walks must say the same as the sum over tensors. */
function searched(architecture: Architecture): number[] {
  const { params, active_params } = costsOf(architecture, { seqLength: 1, batchSize: 1 });
  return [params, active_params];
}

describe("counting parameters from config.json alone", () => {
  it.each(DENSE)("%s", (_name, config, params) => {
    const architecture = readArchitecture(config);
    expect(countParams(architecture)).toBe(params);
    expect(countActiveParams(architecture)).toBe(params);
    expect(searched(architecture)).toEqual([params, params]);
  });

  it.each(SPARSE)("%s", (_name, config, params, active) => {
    const architecture = readArchitecture(config);
    expect(countParams(architecture)).toBe(params);
    expect(countActiveParams(architecture)).toBe(active);
    expect(searched(architecture)).toEqual([params, active]);
  });

  it("counts tied embeddings once", () => {
    const config = { architectures: ["LlamaForCausalLM"], num_hidden_layers: 30, hidden_size: 576, intermediate_size: 1536 };
    const rest = { num_attention_heads: 9, num_key_value_heads: 3, vocab_size: 49152, tie_word_embeddings: true };
    expect(countParams(readArchitecture({ ...config, ...rest }))).toBe(134_515_008);
  });
});

describe("memory of Nemotron-3-Nano at 8 sequences of 8192 tokens", () => {
  const workload = { seqLength: 8192, batchSize: 8 };
  const [KEYS_AND_VALUES, STATES] = [384, 190.46875];

  it.each([
    ["parent", nemotron3(), 60230.1356],
    ["child", nemotron3(2304, 64, 64, 104, 1856, 3072), 42489.7491],
  ])("%s", (_name, config, weights) => {
    expect(costsOf(readArchitecture(config), workload).memory_mb).toBeCloseTo(weights + KEYS_AND_VALUES + STATES, 3);
  });
});
