import { describe, expect, it } from "vitest";
import { readArchitecture } from "../../../src/policy/architecture.js";
import { resolveExportConfig } from "../../../src/policy/exportConfig.js";
import { outlinePlan } from "../../../src/policy/plan.js";
import { TINY_LLAMA } from "../../fixtures/checkpoints.js";

const PARENT = {
  num_layers: 4,
  hidden_size: 256,
  ffn_hidden_size: 512,
  num_attention_heads: 32,
  num_query_groups: 8,
  kv_channels: 16,
  vocab_size: 100,
};

describe("outlinePlan", () => {
  it("warns where transformers' own config class refuses a legal child", () => {
    const llama = readArchitecture({ ...TINY_LLAMA, hidden_size: 24 });
    expect(outlinePlan(llama, TINY_LLAMA, { hidden_size: 20 }).warnings).toContainEqual(
      expect.stringMatching(/transformers 5 refuses .* hidden_size 20, no multiple of its 6 heads/),
    );
    expect(outlinePlan(llama, TINY_LLAMA, { hidden_size: 18 }).warnings).not.toContainEqual(expect.stringMatching(/transformers/));
    const mistral = readArchitecture({ ...TINY_LLAMA, architectures: ["MistralForCausalLM"] });
    expect(outlinePlan(mistral, TINY_LLAMA, { hidden_size: 20 }).warnings).not.toContainEqual(expect.stringMatching(/transformers/));
  });
});

describe("resolveExportConfig", () => {
  it("keeps all groups when heads are given alone", () => {
    expect(resolveExportConfig({ num_attention_heads: 16 }, PARENT).hyperparameters).toMatchObject({
      num_attention_heads: 16,
      num_query_groups: 8,
    });
  });

  it("keeps the heads of each group when groups are given alone", () => {
    expect(resolveExportConfig({ num_query_groups: 2 }, PARENT).hyperparameters).toMatchObject({
      num_attention_heads: 8,
      num_query_groups: 2,
    });
  });

  it("never changes head_dim", () => {
    expect(resolveExportConfig({ hidden_size: 128, num_attention_heads: 16 }, PARENT).hyperparameters.kv_channels).toBe(16);
  });

  it("names the nearest legal head counts", () => {
    expect(() => resolveExportConfig({ num_attention_heads: 30 }, PARENT)).toThrow(
      "num_attention_heads 30 is not a multiple of the 8 query groups kept; the nearest legal values are 24 and 32",
    );
  });

  it("refuses more heads a group than the parent has", () => {
    expect(() => resolveExportConfig({ num_attention_heads: 16, num_query_groups: 2 }, PARENT)).toThrow(/at most 8 heads fit/);
  });

  it("warns of widths that tensor cores dislike, and allows them", () => {
    const { warnings, hyperparameters } = resolveExportConfig({ ffn_hidden_size: 500, hidden_size: 192 }, PARENT);
    expect(hyperparameters.ffn_hidden_size).toBe(500);
    expect(warnings).toEqual([expect.stringContaining("ffn_hidden_size 500 is not a multiple of 64")]);
  });

  it("takes the published Mistral-NeMo-Minitron-8B, which a search grid would refuse", () => {
    const nemo = { ...PARENT, num_layers: 40, hidden_size: 5120, ffn_hidden_size: 14336 };
    expect(resolveExportConfig({ ffn_hidden_size: 11520, hidden_size: 4096 }, nemo).warnings).toEqual([]);
  });

  it.each([
    [{ hidden_size: 257 }, /integer from 1 to 256/],
    [{ hidden_size: 0 }, /integer from 1 to 256/],
    [{ num_layers: 1.5 }, /num_layers 1.5 is not an integer/],
    [{ num_layers: Number.NaN }, /num_layers NaN is not an integer/],
    [{ num_layer: 2 }, /did you mean num_layers\?/],
    [{ kv_channels: 8 }, /kv_channels, which is no hyperparameter that can be pruned/],
    [{}, /empty/],
    [[], /must be an object/],
    [null, /must be an object/],
  ])("refuses %j", (given, message) => {
    expect(() => resolveExportConfig(given, PARENT)).toThrow(message);
  });
});
