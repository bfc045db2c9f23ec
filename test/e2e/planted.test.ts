import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, prune } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import { type PrunableName, prunableNames } from "../../src/policy/hyperparameters.js";
import { type Config, mulberry32, temporaryFolder } from "../fixtures/checkpoints.js";
import { TINY } from "../fixtures/families.js";
import { plant } from "../fixtures/planting.js";
import { Weights } from "../fixtures/weights.js";

const SEEDS = [1, 2, 3];

/** Enough of everything that positions are not kept by chance, and tokens for every expert. */
const wide: Config = { num_attention_heads: 12, num_key_value_heads: 3, num_hidden_layers: 6, vocab_size: 400 };
const NETWORKS: Readonly<Record<string, Config>> = {
  llama: { ...TINY.llama, ...wide },
  mixtral: { ...TINY.mixtral, ...wide, num_local_experts: 6 },
  qwen2Moe: { ...TINY.qwen2Moe, ...wide, num_experts: 6, mlp_only_layers: [1, 4] },
  gptOss: { ...TINY.gptOss, ...wide, num_local_experts: 6 },
  nemotronH: {
    ...TINY.nemotronH,
    ...wide,
    layers_block_type: ["mamba", "attention", "moe", "mlp", "mamba", "attention", "moe", "mlp"],
    num_hidden_layers: undefined,
    n_routed_experts: 6,
    mamba_num_heads: 8,
  },
};

const KEPT: Readonly<Record<PrunableName, number>> = {
  num_layers: 3,
  hidden_size: 9,
  ffn_hidden_size: 11,
  num_attention_heads: 6,
  num_query_groups: 2,
  num_moe_experts: 3,
  moe_ffn_hidden_size: 7,
  moe_shared_expert_intermediate_size: 13,
  mamba_num_heads: 4,
  mamba_head_dim: 3,
};

const CASES = Object.entries(NETWORKS).flatMap(([network, config]) =>
  prunableNames(readArchitecture(config).hyperparameters).map((axis) => ({ network, config, axis })),
);

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

/** Batches of random tokens: 4 of 2 sequences. */
function calibration(seed: number): number[][][] {
  const random = mulberry32(seed);
  const sequence = (): number[] => Array.from({ length: 48 }, () => Math.floor(random() * 400));
  return Array.from({ length: 4 }, () => [sequence(), sequence()]);
}

async function keptOf(weights: Weights, exportConfig: object, seed: number): Promise<unknown> {
  await using model = await bridge.open(await weights.write(join(await temporaryFolder(), "parent")));
  const { stateDict } = await prune(model, "mcore_gpt_minitron", { export_config: exportConfig }, null, { dataLoader: calibration(seed) });
  return stateDict.plan.kept;
}

describe.each(CASES)("$network: what matters of $axis", ({ config, axis }) => {
  it.each(SEEDS)("is measured and kept, wherever it lies (seed %i)", async (seed) => {
    const weights = new Weights(config, seed);
    const expected = plant(axis, readArchitecture(config), weights, KEPT[axis], 100 + seed);
    expect(await keptOf(weights, { [axis]: KEPT[axis] }, seed)).toEqual(expected);
  });
});

it("an expert that the router never chooses goes first, whatever it would give", async () => {
  const weights = new Weights(NETWORKS["gptOss"] ?? {}, 5);
  const unused = (layer: number): number => (layer * 5 + 2) % 6;
  weights.change(/router\.bias$/, (bias, { layer }, [expert]) => (expert === unused(layer) ? -100 : bias));
  weights.scale(/experts\.down_proj$/, ({ layer }, [expert]) => (expert === unused(layer) ? 1000 : 1));
  const kept = Array.from({ length: 6 }, (_, layer) => [layer, [0, 1, 2, 3, 4, 5].filter((expert) => expert !== unused(layer))]);
  expect(await keptOf(weights, { num_moe_experts: 5 }, 5)).toEqual({ expert: Object.fromEntries(kept) });
});
