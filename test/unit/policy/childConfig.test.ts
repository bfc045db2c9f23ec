import { describe, expect, it } from "vitest";
import { readArchitecture } from "../../../src/policy/architecture.js";
import { makePlan } from "../../../src/policy/plan.js";
import { rankByPosition } from "../../../src/policy/rank.js";
import { type Config, TINY_LLAMA } from "../../fixtures/checkpoints.js";
import { TINY } from "../../fixtures/families.js";

const { head_dim: _, ...IMPLICIT }: Config = { ...TINY_LLAMA, hidden_size: 48 };

function patched(config: Config, exportConfig: unknown): Config {
  const architecture = readArchitecture(config);
  return makePlan(architecture, config, exportConfig, rankByPosition(architecture)).config;
}

describe("the child's config", () => {
  it("makes an implicit head_dim explicit", () => {
    expect(patched(IMPLICIT, { hidden_size: 24 })).toEqual({ hidden_size: 24, head_dim: 8 });
  });

  it("makes implicit query groups explicit", () => {
    const { num_key_value_heads: _groups, ...config } = TINY_LLAMA;
    expect(patched(config, { num_query_groups: 4 })).toEqual({ num_attention_heads: 4, num_key_value_heads: 4 });
  });

  it("states a size under the name that every loader knows, beside an older one", () => {
    const { layers_block_type: kinds, head_dim, n_groups, ...rest }: Config = TINY.nemotronH;
    const older = { ...rest, layers_block_type: kinds, attention_head_dim: head_dim, mamba_n_groups: n_groups };
    expect(patched(older, { hidden_size: 16 })).toMatchObject({ head_dim: 8, n_groups: 2 });
    expect(patched({ ...TINY.mixtral, num_local_experts: undefined, num_experts: 4 }, { num_moe_experts: 2 })).toEqual({
      num_experts: 2,
      num_local_experts: 2,
    });
  });

  it("states a size under every name that the parent states it under", () => {
    expect(patched({ ...TINY.gptOss, num_experts: 4 }, { num_moe_experts: 2 })).toEqual({ num_local_experts: 2, num_experts: 2 });
    expect(patched({ ...TINY.qwen3Moe, num_local_experts: 4 }, { num_moe_experts: 2 })).toMatchObject({
      num_local_experts: 2,
      num_experts: 2,
    });
  });

  it("picks the entries of per-layer lists", () => {
    const config = { ...TINY_LLAMA, layer_types: ["full_attention", "sliding_attention", "full_attention"] };
    expect(patched(config, { num_layers: 2 })).toEqual({ num_hidden_layers: 2, layer_types: ["full_attention", "sliding_attention"] });
  });

  it("refuses a per-layer list of another length", () => {
    expect(() => patched({ ...TINY_LLAMA, layer_types: ["full_attention"] }, { num_layers: 2 })).toThrow(
      /layer_types must be a list with one entry/,
    );
  });

  it.each([
    [1, 1],
    [2, 2],
    [28, undefined],
  ])("moves a window that starts at layer %i", (before, after) => {
    const config = { ...TINY_LLAMA, architectures: ["Qwen2ForCausalLM"], max_window_layers: before };
    expect(patched(config, { num_layers: 2 })["max_window_layers"]).toBe(after);
  });
});

describe("readArchitecture", () => {
  it.each([
    ["LlamaForCausalLM", { head_dim: null }, { kv_channels: 4, num_query_groups: 3 }],
    ["MistralForCausalLM", { num_key_value_heads: undefined, num_attention_heads: 16 }, { num_query_groups: 8 }],
    ["Qwen3ForCausalLM", { head_dim: undefined }, { kv_channels: 128 }],
    ["NemotronForCausalLM", { num_key_value_heads: null }, { num_query_groups: 6 }],
  ])("takes %s's own defaults", (architecture, change, expected) => {
    const config = { ...TINY_LLAMA, architectures: [architecture], ...change };
    expect(readArchitecture(config).hyperparameters).toMatchObject(expected);
  });

  it.each([
    [{ hidden_size: undefined }, /hidden_size is missing/],
    [{ vocab_size: "50" }, /vocab_size is "50"; it must be a positive integer/],
    [{ num_hidden_layers: 0 }, /num_hidden_layers is 0/],
    [{ tie_word_embeddings: "yes" }, /tie_word_embeddings is "yes"/],
    [{ architectures: undefined }, /names no model class/],
    [{ architectures: ["GPT2LMHeadModel"] }, /no family table for the architecture GPT2LMHeadModel/],
  ])("refuses %j", (change, message) => {
    expect(() => readArchitecture({ ...TINY_LLAMA, ...change })).toThrow(message);
  });

  it("refuses a size that is stated twice and differently", () => {
    expect(() => readArchitecture({ ...TINY.gptOss, num_experts: 8 })).toThrow(
      expect.objectContaining({
        code: "BAD_CONFIG",
        detail: "config.json: num_local_experts is 4 and num_experts is 8",
        hint: "both state num_moe_experts: correct whichever is wrong",
      }),
    );
  });
});
