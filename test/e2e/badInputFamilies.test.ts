import { beforeEach, describe, it } from "vitest";
import {
  type Case,
  type Change,
  expectRefused as expectRefusedOf,
  type GoodInput,
  makeGoodInput,
  replaceParent,
} from "../fixtures/badInput.js";
import type { Config } from "../fixtures/checkpoints.js";
import { TINY } from "../fixtures/families.js";
import { mxfp4, quantizedTensors } from "../fixtures/quantized.js";

const OSS = { ...TINY.gptOss, intermediate_size: 32 };

let good: GoodInput;

beforeEach(async () => {
  good = await makeGoodInput();
});

const expectRefused = (row: Case): Promise<void> => expectRefusedOf(good, row);
const another = (config: Config, change?: Change) => (): Promise<void> => replaceParent(good, config, change);

describe("a network of experts that is wrong", () => {
  const W1 = "model.layers.1.block_sparse_moe.experts.2.w1.weight";

  it("lacks a matrix of an expert", () =>
    expectRefused({
      code: "MISSING_TENSOR",
      says: /no model.layers.1.block_sparse_moe.experts.2.w1.weight, which mixtral models have/,
      hints: /download the checkpoint again/,
      spoil: another(TINY.mixtral, { tensors: (all) => all.filter(({ name }) => name !== W1) }),
    }));
  it("has an expert more than its config", () =>
    expectRefused({
      code: "UNKNOWN_TENSOR",
      says: /experts.4.w1.weight lies beyond the 4 experts that config.json states/,
      hints: /different models/,
      spoil: another(TINY.mixtral, {
        tensors: (all) => [
          ...all,
          ...all.filter(({ name }) => name === W1).map((w1) => ({ ...w1, name: W1.replace("experts.2", "experts.4") })),
        ],
      }),
    }));
  it("has packed experts of another number", () =>
    expectRefused({
      code: "BAD_TENSOR",
      says: /router.weight has shape \[4, 32\], but config.json makes \[expert, hidden\] = \[5, 32\]/,
      spoil: another(TINY.gptOss, { config: { num_local_experts: 5 } }),
    }));
  it("states two numbers of experts", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /num_local_experts is 4 and num_experts is 8/,
      hints: /correct whichever is wrong/,
      spoil: another(TINY.gptOss, { config: { num_experts: 8 } }),
    }));
  it("is quantised to MXFP4, and its config does not say so", () =>
    expectRefused({
      code: "UNSUPPORTED_QUANTIZATION",
      says: /layers.0.mlp.experts.gate_up_proj_blocks looks like a part of a weight quantised by mxfp4, and config.json has no quantization/,
      hints: /dequantise the checkpoint first/,
      spoil: another(OSS, { tensors: () => quantizedTensors(OSS, mxfp4) }),
    }));
  it("is quantised in a way that cannot be cut", () =>
    expectRefused({
      code: "UNSUPPORTED_QUANTIZATION",
      says: /config.json: the weights are quantised by awq, in a layout that cannot be cut/,
      hints: /prune its unquantised parent and quantise the child/,
      spoil: another(TINY.mixtral, { config: { quantization_config: { quant_method: "awq", bits: 4 } } }),
    }));
  it("has no divisible number of experts for its router's groups", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /num_moe_experts 4 does not divide into 3 groups/,
      hints: /n_routed_experts must be a multiple of n_group/,
      spoil: another(TINY.nemotronH, { config: { n_group: 3 } }),
    }));
  it("shall keep fewer experts than a token passes", () =>
    expectRefused({
      code: "BAD_EXPORT_CONFIG",
      says: /num_moe_experts 1 is too few: a token passes 2 experts/,
      args: { "--export-config": '{"num_moe_experts": 1}' },
      spoil: another(TINY.mixtral),
    }));
  it("shall be cut in what it has not", () =>
    expectRefused({
      code: "BAD_EXPORT_CONFIG",
      says: /this network has no ffn_hidden_size/,
      hints: /it has .*moe_ffn_hidden_size/,
      spoil: another(TINY.mixtral),
    }));
});

describe("a hybrid that is wrong", () => {
  const { layers_block_type: _, ...older }: Config = TINY.nemotronH;
  const patterned = (pattern: string): Config => ({ num_hidden_layers: 4, layers_block_type: undefined, hybrid_override_pattern: pattern });

  it("has a layer of an unknown kind", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /hybrid_override_pattern says that layer 1 is "X", which the nemotron_h family has not/,
      hints: /it has M, \*, -, E$/,
      spoil: another(TINY.nemotronH, { config: patterned("MXE*") }),
    }));
  it("has a pattern of another length", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /hybrid_override_pattern names 3 layers where num_hidden_layers states 4/,
      hints: /correct whichever is wrong/,
      spoil: another(TINY.nemotronH, { config: patterned("M-*") }),
    }));
  it("has no pattern at all", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /the kinds of the layers are missing; layers_block_type or hybrid_override_pattern states them/,
      spoil: another(TINY.nemotronH, { config: { ...older, num_hidden_layers: 4, layers_block_type: undefined } }),
    }));
  it("has layers of other kinds than its pattern", () =>
    expectRefused({
      code: "UNKNOWN_TENSOR",
      says: /has no tensor backbone.layers.0.mixer/,
      spoil: another(TINY.nemotronH, { config: patterned("-ME*") }),
    }));
  it("has Mamba heads that do not divide into groups", () =>
    expectRefused({
      code: "BAD_CONFIG",
      says: /mamba_num_heads 4 does not divide into 3 groups/,
      hints: /mamba_num_heads must be a multiple of n_groups/,
      spoil: another(TINY.nemotronH, { config: { n_groups: 3 } }),
    }));
  it("shall keep Mamba heads that do not divide into groups", () =>
    expectRefused({
      code: "BAD_EXPORT_CONFIG",
      says: /mamba_num_heads 3 is not a multiple of the 2 groups that share B and C; the nearest legal values are 2 and 4/,
      args: { "--export-config": '{"mamba_num_heads": 3}' },
      spoil: another(TINY.nemotronH),
    }));
});
