import { describe, expect, it } from "vitest";
import { readArchitecture } from "../../../src/policy/architecture.js";
import { countParams } from "../../../src/policy/cost.js";

type Row = [name: string, family: string, L: number, h: number, f: number, H: number, G: number, d: number, V: number, params: number];

// Published models and what came of pruning them: totals that NVIDIA's tools or the model cards give.
const PUBLISHED: Row[] = [
  ["Llama-3.1-8B", "Llama", 32, 4096, 14336, 32, 8, 128, 128256, 8_030_261_248],
  ["Llama-3.1-Minitron-4B-Width", "Llama", 32, 3072, 9216, 32, 8, 128, 128256, 4_512_746_496],
  ["Llama-3.1-Minitron-4B-Depth", "Llama", 16, 4096, 14336, 32, 8, 128, 128256, 4_540_469_248],
  ["Mistral-NeMo-12B", "Mistral", 40, 5120, 14336, 32, 8, 128, 131072, 12_247_782_400],
  ["Mistral-NeMo-Minitron-8B", "Mistral", 40, 4096, 11520, 32, 8, 128, 131072, 8_414_105_600],
  ["Nemotron-4-15B", "Nemotron", 32, 6144, 24576, 48, 8, 128, 256000, 15_628_775_424],
  ["Minitron-8B", "Nemotron", 32, 4096, 16384, 48, 8, 128, 256000, 8_271_699_968],
  ["Minitron-4B", "Nemotron", 32, 3072, 9216, 24, 8, 128, 256000, 4_190_509_056],
  ["Qwen3-8B", "Qwen3", 36, 4096, 12288, 32, 8, 128, 151936, 8_190_735_360],
  ["Qwen3-8B, 24 layers", "Qwen3", 24, 4096, 12288, 32, 8, 128, 151936, 5_875_378_176],
  ["Qwen3-8B, narrow", "Qwen3", 36, 3584, 9216, 32, 8, 128, 151936, 5_977_809_408],
  ["Qwen3-8B, searched", "Qwen3", 30, 3584, 11776, 32, 8, 128, 151936, 5_988_774_912],
  ["Qwen2.5-7B", "Qwen2", 28, 3584, 18944, 28, 4, 128, 152064, 7_615_616_512],
];

describe("countParams", () => {
  it.each(PUBLISHED)("%s", (_name, family, L, h, f, H, G, d, V, params) => {
    const config = {
      architectures: [`${family}ForCausalLM`],
      num_hidden_layers: L,
      hidden_size: h,
      intermediate_size: f,
      num_attention_heads: H,
      num_key_value_heads: G,
      head_dim: d,
      vocab_size: V,
    };
    expect(countParams(readArchitecture(config))).toBe(params);
  });

  it("counts tied embeddings once", () => {
    const config = { architectures: ["LlamaForCausalLM"], num_hidden_layers: 30, hidden_size: 576, intermediate_size: 1536 };
    const rest = { num_attention_heads: 9, num_key_value_heads: 3, vocab_size: 49152, tie_word_embeddings: true };
    expect(countParams(readArchitecture({ ...config, ...rest }))).toBe(134_515_008);
  });
});
