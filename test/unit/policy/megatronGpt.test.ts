import { describe, expect, it } from "vitest";
import { layersWith, readArchitecture } from "../../../src/policy/architecture.js";
import { countActiveParams, countParams } from "../../../src/policy/cost.js";
import { matchTensors } from "../../../src/policy/matchTensors.js";
import { makePlan } from "../../../src/policy/plan.js";
import { rankByPosition } from "../../../src/policy/rank.js";
import { hookPoints } from "../../../src/policy/scores.js";
import { expectedTensors } from "../../../src/policy/tensors.js";
import type { Config } from "../../fixtures/checkpoints.js";
import { MEGATRON, TINY } from "../../fixtures/families.js";
import { dense, MIXTRAL_8X7B, QWEN3_30B } from "../../fixtures/published.js";

const GATED = {
  architectures: ["GPTModel"],
  normalization: "RMSNorm",
  position_embedding_type: "rope",
  gated_linear_unit: true,
  add_bias_linear: false,
};
const LLAMA_8B: Config = {
  ...GATED,
  num_layers: 32,
  hidden_size: 4096,
  ffn_hidden_size: 14336,
  num_attention_heads: 32,
  num_query_groups: 8,
  vocab_size: 128256,
};
const QWEN2_7B: Config = {
  ...GATED,
  add_qkv_bias: true,
  num_layers: 28,
  hidden_size: 3584,
  ffn_hidden_size: 18944,
  num_attention_heads: 28,
  num_query_groups: 4,
  vocab_size: 152064,
};
const NEMOTRON_15B: Config = {
  ...GATED,
  gated_linear_unit: false,
  normalization: "LayerNorm",
  num_layers: 32,
  hidden_size: 6144,
  ffn_hidden_size: 24576,
  num_attention_heads: 48,
  num_query_groups: 8,
  vocab_size: 256000,
};
const MIXTRAL: Config = { ...LLAMA_8B, vocab_size: 32000, num_moe_experts: 8, moe_router_topk: 2, moe_ffn_hidden_size: 14336 };
const QWEN3_MOE: Config = {
  ...GATED,
  qk_layernorm: true,
  num_layers: 48,
  hidden_size: 2048,
  ffn_hidden_size: 6144,
  num_attention_heads: 32,
  num_query_groups: 4,
  kv_channels: 128,
  vocab_size: 151936,
  num_moe_experts: 128,
  moe_router_topk: 8,
  moe_ffn_hidden_size: 768,
};

it.each([
  ["Llama-3.1-8B", LLAMA_8B, dense("Llama", 32, 4096, 14336, 32, 8, 128, 128256)],
  ["Qwen2.5-7B", QWEN2_7B, dense("Qwen2", 28, 3584, 18944, 28, 4, 128, 152064)],
  ["Nemotron-4-15B", NEMOTRON_15B, dense("Nemotron", 32, 6144, 24576, 48, 8, 128, 256000)],
  ["Mixtral-8x7B", MIXTRAL, MIXTRAL_8X7B],
  ["Qwen3-30B-A3B", QWEN3_MOE, QWEN3_30B],
])("%s has as many parameters under Megatron's names as under those of its hub", (_name, megatron, hub) => {
  const [ours, theirs] = [readArchitecture(megatron), readArchitecture(hub)];
  expect(countParams(ours)).toBe(countParams(theirs));
  expect(countActiveParams(ours)).toBe(countActiveParams(theirs));
});

it.each([
  ["with biases and learned positions, as Megatron-Core has by default", MEGATRON.megatronDense, 4 * 8 + 2],
  ["without biases", { ...MEGATRON.megatronDense, add_bias_linear: false }, 4 * 4 + 2],
  ["with a bias of queries, keys and values alone", { ...MEGATRON.megatronDense, add_bias_linear: false, add_qkv_bias: true }, 4 * 5 + 2],
])("has the tensors of a model %s", (_name, config, tensors) => {
  const names = expectedTensors(readArchitecture(config)).map(({ stored }) => stored.name);
  const projections = names.filter((name) => !/norm/.test(name));
  expect(projections).toHaveLength(tensors);
  expect(projections).toContain("embedding.position_embeddings.weight");
});

describe("the layers that have experts", () => {
  const sparse = (change: Config): number[] => layersWith(readArchitecture({ ...MEGATRON.megatronExperts, ...change }), "expert");

  it("are those of a list, or every so many from the first on, as Megatron counts", () => {
    expect(sparse({})).toEqual([1, 2]);
    expect(sparse({ moe_layer_freq: 1 })).toEqual([0, 1, 2, 3]);
    expect(sparse({ moe_layer_freq: 3 })).toEqual([0, 3]);
    expect(sparse({ moe_layer_freq: undefined })).toEqual([0, 1, 2, 3]);
    expect(sparse({ num_moe_experts: undefined })).toEqual([]);
  });

  it.each([0, "1", [1, 1], [2, 0, 0, 0]])("cannot be said by %j", (frequency) => {
    expect(() => sparse({ moe_layer_freq: frequency })).toThrow(/moe_layer_freq must be a positive integer, or a list of 0 or 1/);
  });

  it("stay what they are when others are dropped", () => {
    for (const [frequency, expected] of [
      [
        [0, 1, 1, 0],
        [0, 1],
      ],
      [3, [1, 0]],
      [1, undefined],
    ] as const) {
      const config = { ...MEGATRON.megatronExperts, moe_layer_freq: frequency };
      const architecture = readArchitecture(config);
      const plan = makePlan(architecture, config, { num_layers: 2 }, rankByPosition(architecture));
      expect(plan.config["moe_layer_freq"]).toEqual(expected);
    }
  });
});

it.each([
  ["window_attn_skip_freq", 2, [1, 0, 1]],
  ["window_attn_skip_freq", [0, 0, 1, 1], [0, 0, 1]],
  ["window_attn_skip_freq", 1, undefined],
  ["no_rope_freq", 2, [0, 1, 0]],
  ["no_rope_freq", [1, 0, 0, 1], [1, 0, 0]],
  ["no_rope_freq", 0, undefined],
])("keeps what %s %j says of each layer", (field, frequency, expected) => {
  const config = { ...MEGATRON.megatronDense, num_layers: 4, [field]: frequency };
  const architecture = readArchitecture(config);
  const drop = (layers: number) => makePlan(architecture, config, { num_layers: layers }, rankByPosition(architecture)).config[field];
  expect(drop(3)).toEqual(expected);
  expect(drop(4)).toBeUndefined();
});

it("measures shared experts where there are some", () => {
  const measured = (config: Config): boolean => hookPoints(readArchitecture(config)).some(({ key }) => key.includes("shared_experts"));
  expect(measured(MIXTRAL)).toBe(false);
  expect(measured({ ...MIXTRAL, moe_shared_expert_intermediate_size: 512 })).toBe(true);
});

it.each([
  ["normalization", "FusedNorm", /normalization is "FusedNorm"; it must be LayerNorm or RMSNorm/],
  ["position_embedding_type", "relative", /must be learned_absolute or rope/],
  ["add_bias_linear", "no", /add_bias_linear is "no"; it must be true or false/],
  ["normalization", true, /it must be LayerNorm or RMSNorm/],
])("refuses %s %j", (field, value, message) => {
  expect(() => readArchitecture({ ...MEGATRON.megatronDense, [field]: value })).toThrow(message);
});

it("leaves heads for several tokens ahead out, whatever wrapper they are in, and warns", () => {
  const config = { ...MEGATRON.megatronExperts, mtp_num_layers: 1 };
  const architecture = readArchitecture(config);
  const stored = expectedTensors(architecture).map((tensor) => tensor.stored);
  const ahead = ["mtp.layers.0.eh_proj.weight", "module.mtp.layers.0.hnorm.weight"].map((name) => ({ name, shape: [24] }));
  expect(matchTensors(architecture, [...stored, ...ahead]).tensors).toHaveLength(stored.length);
  const plan = makePlan(architecture, config, { num_layers: 2 }, rankByPosition(architecture));
  expect(plan.config["mtp_num_layers"]).toBe(0);
  expect(plan.warnings.join()).toMatch(/multi-token prediction/);
});

it("asks learned positions only of models that have them", () => {
  expect(readArchitecture(MEGATRON.megatronDense).hyperparameters.max_position_embeddings).toBe(16);
  expect(readArchitecture(MEGATRON.megatronExperts).hyperparameters).not.toHaveProperty("max_position_embeddings");
  expect(readArchitecture(TINY.llama).hyperparameters).not.toHaveProperty("max_position_embeddings");
});
