import { describe, expect, it } from "vitest";
import { layersWith, readArchitecture } from "../../../src/policy/architecture.js";
import { FAMILIES } from "../../../src/policy/families/registry.js";
import type { LayerKind } from "../../../src/policy/families/table.js";
import { matchTensors } from "../../../src/policy/matchTensors.js";
import { makePlan } from "../../../src/policy/plan.js";
import { rankByActivation } from "../../../src/policy/rank.js";
import { sliceTensors } from "../../../src/policy/slices.js";
import { expectedTensors } from "../../../src/policy/tensors.js";
import { asFloat32 } from "../../../src/tensor.js";
import { type Config, plantedScores } from "../../fixtures/checkpoints.js";
import { everyAxis } from "../../fixtures/cutting.js";
import { IMPLIED_HEADS, MEGATRON, TINY } from "../../fixtures/families.js";

type Importance = (name: string, position: number) => number;

function planOf(config: Config, exportConfig: unknown, importance: Importance = () => 1): ReturnType<typeof makePlan> {
  const architecture = readArchitecture(config);
  const scores = new Map(
    plantedScores(config, importance).map((tensor) => [tensor.name, { shape: tensor.shape, data: asFloat32(tensor) }]),
  );
  return makePlan(architecture, config, exportConfig, rankByActivation(architecture, scores));
}

describe.each(Object.entries({ ...TINY, ...IMPLIED_HEADS, ...MEGATRON }))("%s", (_name, config) => {
  const architecture = readArchitecture(config);

  it.each(architecture.table.layouts.map(({ name }) => name))("knows every tensor of the layout %s", (layout) => {
    const stored = expectedTensors(architecture, layout).map((tensor) => tensor.stored);
    const matched = matchTensors(architecture, stored);
    expect(matched.layout).toBe(layout);
    expect(matched.tensors).toHaveLength(stored.length);
    expect(() => matchTensors(architecture, stored.slice(1))).toThrow(/MISSING_TENSOR/);
    expect(() => matchTensors(architecture, [...stored, { name: "model.layers.0.mlp.lora_A.weight", shape: [1] }])).toThrow(
      /UNKNOWN_TENSOR/,
    );
    const [first, ...rest] = stored;
    const reshaped = { name: first?.name ?? "", shape: [...(first?.shape ?? []).slice(0, -1), 7] };
    expect(() => matchTensors(architecture, [reshaped, ...rest])).toThrow(/BAD_TENSOR/);
  });

  it("makes the shapes that the child's config makes", () => {
    const sizes = architecture.table.impliedHeadDim
      ? everyAxis(config)
      : Object.fromEntries(
          Object.entries(TINY_TARGETS).flatMap(([name, shrink]) => {
            const size = architecture.hyperparameters[name as keyof typeof TINY_TARGETS];
            return size === undefined ? [] : [[name, shrink(size)]];
          }),
        );
    const plan = planOf(config, sizes, (name, i) => 1 + ((name.length * 31 + i * 17) % 13));
    const child = readArchitecture({ ...config, ...plan.config });
    for (const { name: layout } of architecture.table.layouts) {
      const cut = sliceTensors(architecture, plan.kept, expectedTensors(architecture, layout));
      const made = cut.tensors.map(({ name, shape }) => ({ name, shape }));
      expect(made).toEqual(expectedTensors(child, layout).map(({ stored }) => ({ name: stored.name, shape: stored.shape })));
    }
  });
});

const TINY_TARGETS = {
  num_layers: (n: number) => n - 1,
  hidden_size: (n: number) => n - 4,
  ffn_hidden_size: (n: number) => n - 5,
  num_attention_heads: (n: number) => n / 2,
  num_moe_experts: (n: number) => n - 2,
  moe_ffn_hidden_size: (n: number) => n - 3,
  moe_shared_expert_intermediate_size: (n: number) => n - 7,
  mamba_num_heads: (n: number) => n / 2,
  mamba_head_dim: (n: number) => n - 3,
} as const;

describe("experts", () => {
  const at = (layer: number, what: string): string => `decoder.layers.${layer}.mlp.experts.${what}`;

  it("are ranked by their outputs' norms for each token routed to them, and an expert without a token is last", () => {
    const norms = [6, 9, 8, 0];
    const tokens = [1, 3, 1, 0];
    const { kept } = planOf(TINY.mixtral, { num_moe_experts: 2 }, (name, i) =>
      name.endsWith("expert_l2_scores") ? (norms[i] ?? 0) : name.endsWith("expert_sample_counts") ? (tokens[i] ?? 0) : 1,
    );
    expect(kept.expert).toEqual({ "0": [0, 2], "1": [0, 2] });
  });

  it("keep channels of their own", () => {
    const { kept } = planOf(TINY.mixtral, { moe_ffn_hidden_size: 1, num_moe_experts: 3 }, (name, i) => {
      if (name.endsWith("expert_l2_scores")) return i === 1 ? 0 : 1;
      const expert = /local_experts\.(\d)$/.exec(name)?.[1];
      return expert !== undefined && i === 5 + Number(expert) ? 2 : 1;
    });
    expect(kept.moe_ffn).toMatchObject({ "1": { "0": [5], "2": [7], "3": [8] } });
    expect(Object.keys(kept.moe_ffn?.["0" as never] ?? {})).toEqual(["0", "2", "3"]);
  });

  it("stay within the router's groups", () => {
    const grouped = { ...TINY.nemotronH, n_routed_experts: 8, n_group: 2, topk_group: 1 };
    const { kept } = planOf(grouped, { num_moe_experts: 4 }, (name, i) => (name === at(2, "expert_l2_scores") ? i : 1));
    expect(kept.expert).toEqual({ "2": [2, 3, 6, 7] });
    expect(() => planOf(grouped, { num_moe_experts: 3 })).toThrow(/not a multiple of the 2 groups that the router chooses among/);
  });

  it("cannot be fewer than a token passes", () => {
    expect(() => planOf(TINY.mixtral, { num_moe_experts: 1 })).toThrow(/a token passes 2 experts, which takes at least 2/);
  });

  it("of the other kind of layer are not asked for", () => {
    expect(layersWith(readArchitecture(TINY.qwen2Moe), "expert")).toEqual([0, 2, 3]);
    expect(layersWith(readArchitecture(TINY.qwen2Moe), "ffn")).toEqual([1]);
    expect(planOf(TINY.qwen2Moe, { ffn_hidden_size: 2, moe_shared_expert_intermediate_size: 3 }).kept).toEqual({
      ffn: { "1": [0, 1] },
      moe_shared_ffn: { "0": [0, 1, 2], "2": [0, 1, 2], "3": [0, 1, 2] },
    });
  });

  it("in one tensor are cut block by block where each keeps channels of its own", () => {
    const architecture = readArchitecture(TINY.gptOss);
    const { kept } = planOf(TINY.gptOss, { moe_ffn_hidden_size: 2, num_moe_experts: 3 }, (name, i) =>
      name.endsWith("local_experts.3") ? i : name.endsWith("l2_scores") && i === 0 ? 0 : 1,
    );
    const cut = sliceTensors(architecture, kept, expectedTensors(architecture));
    const gateUp = cut.tensors.find(({ name }) => name === "model.layers.0.mlp.experts.gate_up_proj");
    const [part] = gateUp?.parts ?? [];
    expect(part?.axes).toHaveLength(1);
    expect(cut.indexSets.get(part?.axes[0] ?? "")).toEqual([1, 2, 3]);
    expect(part?.blocks).toHaveLength(3);
    // Gates and ups alternate: channel c is columns 2c and 2c + 1.
    const width = architecture.hyperparameters.moe_ffn_hidden_size ?? 0;
    expect(cut.indexSets.get(part?.blocks[2]?.[1] ?? "")).toEqual([2 * width - 4, 2 * width - 3, 2 * width - 2, 2 * width - 1]);
  });
});

describe("Mamba heads", () => {
  const channels = (name: string): boolean => name.endsWith("mixer.in_proj");
  // 4 heads of 8 channels in 2 groups: z takes the first 32 of in_proj's outputs, x the next.
  const X = 32;

  it("are ranked within their group by the channels that stay, read from the x block alone", () => {
    const importance: Importance = (name, i) => {
      if (!channels(name)) return 1;
      const [head, channel] = [Math.floor((i - X) / 8), (i - X) % 8];
      if (i < X || head > 3) return 100;
      // Channels 6 and 7 matter most; without the rest, heads 1 and 2 are the best of their groups.
      return (channel > 5 ? 10 : 0) + (channel > 5 && (head === 1 || head === 2) ? 5 : 0) + (channel === 0 && head === 0 ? 9 : 0);
    };
    const { kept } = planOf(TINY.nemotronH, { mamba_head_dim: 2, mamba_num_heads: 2 }, importance);
    expect(kept.mamba_head_dim).toEqual({ "0": [6, 7] });
    expect(kept.mamba_heads_of_group).toEqual({ "0": { "0": [1], "1": [0] } });
  });

  it("must fill the groups that share B and C", () => {
    expect(() => planOf(TINY.nemotronH, { mamba_num_heads: 3 })).toThrow(/mamba_num_heads 3 is not a multiple of the 2 groups/);
  });
});

describe("the child's config", () => {
  const dropping = (config: Config, layer: number, left: number): unknown =>
    planOf(config, { num_layers: left }, (name, i) => (name === "layer_scores" && i === layer ? 0 : 1)).config;

  it("spells out layer lists that the parent's stood for", () => {
    // Every sixth layer sees all: the sixth of seven becomes the fifth.
    const gemma = { ...TINY.gemma3, num_hidden_layers: 7 };
    expect(dropping(gemma, 2, 6)).toMatchObject({
      layer_types: [...Array(4).fill("sliding_attention"), "full_attention", "sliding_attention"],
    });
    expect(dropping(TINY.gptOss, 0, 3)).toMatchObject({ layer_types: ["full_attention", "sliding_attention", "full_attention"] });
    expect(dropping({ ...TINY.gemma3, sliding_window_pattern: 2 }, 0, 3)).toMatchObject({
      layer_types: ["full_attention", "sliding_attention", "full_attention"],
    });
  });

  it("names dense layers by their new place", () => {
    expect(dropping(TINY.qwen2Moe, 0, 3)).toMatchObject({ mlp_only_layers: [0], decoder_sparse_step: 1 });
    expect(dropping({ ...TINY.qwen3Moe, decoder_sparse_step: 2 }, 1, 3)).toMatchObject({ mlp_only_layers: [0, 1], decoder_sparse_step: 1 });
  });

  it("keeps a hybrid's pattern in the form that it has", () => {
    expect(dropping(TINY.nemotronH, 1, 3)).toMatchObject({ layers_block_type: ["mamba", "moe", "attention"], num_hidden_layers: 3 });
    const { layers_block_type: _, ...older } = TINY.nemotronH;
    expect(dropping({ ...older, num_hidden_layers: 4, hybrid_override_pattern: "M-E*" }, 1, 3)).toMatchObject({
      hybrid_override_pattern: "ME*",
      num_hidden_layers: 3,
    });
  });

  it("goes without heads for several tokens ahead, and says so", () => {
    const config = { ...TINY.nemotronH, num_nextn_predict_layers: 1 };
    const architecture = readArchitecture(config);
    const stored = [
      ...expectedTensors(architecture, "huggingface").map((tensor) => tensor.stored),
      { name: "mtp.layers.0.norm.weight", shape: [3] },
    ];
    expect(matchTensors(architecture, stored).tensors).toHaveLength(stored.length - 1);
    const { config: patch, warnings } = planOf(config, { hidden_size: 16 });
    expect(patch).toMatchObject({ num_nextn_predict_layers: 0 });
    expect(warnings).toContainEqual(expect.stringMatching(/several tokens ahead/));
  });

  it("warns of embeddings that shrink with the hidden size", () => {
    expect(planOf(TINY.gemma3, { hidden_size: 16 }).warnings).toContainEqual(expect.stringMatching(/multiplies embeddings/));
  });
});

it("has hooks whose accumulators have names of their own in every kind of layer", () => {
  for (const table of FAMILIES) {
    const kinds = new Set(table.hooks.flatMap(({ on }): readonly LayerKind[] => on ?? ["decoder"]));
    for (const kind of kinds) {
      const names = table.hooks.filter(({ on }) => on?.includes(kind) ?? true).map(({ accumulator }) => accumulator);
      expect(new Set(names).size, `${table.family} ${kind}`).toBe(names.length);
    }
  }
});
