import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readArchitecture, withHyperparameters } from "../../../src/policy/architecture.js";
import { countParams } from "../../../src/policy/cost.js";
import type { Hyperparameters } from "../../../src/policy/hyperparameters.js";
import { parseBounds } from "../../../src/policy/search/bounds.js";
import { METRICS } from "../../../src/policy/search/metrics.js";
import { costsOf, outlineSubnets, searchSubnets } from "../../../src/policy/search/search.js";
import { SEARCHED, SPACE_DEFAULTS, searchSpace, spaceSize } from "../../../src/policy/search/space.js";
import { NETWORKS } from "../../fixtures/families.js";
import { hybrid, NANO_9B, nemotron3 } from "../../fixtures/published.js";

const LLAMA_8B = readArchitecture({
  architectures: ["LlamaForCausalLM"],
  num_hidden_layers: 32,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  vocab_size: 128256,
});
const WORKLOAD = { seqLength: 4096, batchSize: 1 };
const SPACE = searchSpace(LLAMA_8B.hyperparameters, SPACE_DEFAULTS);

describe("searchSpace", () => {
  it("has the multiples of each divisor above the largest share that may go, and the parent's size", () => {
    expect(SPACE.num_layers).toEqual([26, 28, 30, 32]);
    expect(SPACE.hidden_size).toEqual([2560, 2816, 3072, 3328, 3584, 3840, 4096]);
    expect(SPACE.num_attention_heads).toEqual([24, 32]);
    expect(spaceSize(SPACE)).toBe(4 * 7 * 2 * (SPACE.ffn_hidden_size?.length ?? 0));
  });

  it("leaves out a size that is exactly the share away, and keeps a parent that is no multiple", () => {
    // The published space of Nemotron-Nano-9B-v2 has 8 hidden sizes, 13 FFN widths and 6 depths.
    const nano = { ...LLAMA_8B.hyperparameters, num_layers: 56, hidden_size: 4480, ffn_hidden_size: 15680, num_attention_heads: 40 };
    const space = searchSpace(nano, { ...SPACE_DEFAULTS, hparamsToSkip: ["num_attention_heads"] });
    expect([space.hidden_size.length, space.ffn_hidden_size?.length, space.num_layers.length]).toEqual([8, 13, 6]);
    expect(space.hidden_size.at(-1)).toBe(4480);
    expect(space.num_attention_heads).toEqual([40]);
  });

  it("has the sizes of the spaces that NVIDIA published", () => {
    const nano9b = readArchitecture(hybrid(NANO_9B, 4480, 15680, 40, 8, 128, 80));
    const skipHeads = { ...SPACE_DEFAULTS, hparamsToSkip: ["num_attention_heads"] };
    expect(spaceSize(searchSpace(nano9b.hyperparameters, skipHeads))).toBe(17_472);
    const narrower = { maxWidthPruning: 0.3, maxDepthPruning: 0.15, ffn_hidden_size_divisor: 256 };
    expect(spaceSize(searchSpace(readArchitecture(nemotron3()).hyperparameters, { ...skipHeads, ...narrower }))).toBe(10_800);
  });

  it("has no fewer experts than a token passes", () => {
    const sparse = { ...LLAMA_8B.hyperparameters, num_moe_experts: 16, moe_ffn_hidden_size: 512, moe_router_topk: 12 };
    expect(searchSpace(sparse, { ...SPACE_DEFAULTS, num_moe_experts_divisor: 2 }).num_moe_experts).toEqual([12, 14, 16]);
  });

  it("refuses a name that is not searched", () => {
    expect(() => searchSpace(LLAMA_8B.hyperparameters, { ...SPACE_DEFAULTS, hparamsToSkip: ["kv_channels"] })).toThrow(
      /hparamsToSkip names kv_channels, which is not searched/,
    );
  });
});

describe("costs", () => {
  it("count keys and values of the cache at 2 bytes, in MiB", () => {
    const { params, memory_mb } = costsOf(LLAMA_8B, { seqLength: 8192, batchSize: 8 });
    const cache = 2 * 32 * 8 * 128 * 8192 * 8 * 2;
    expect(memory_mb).toBeCloseTo((2 * params + cache) / 2 ** 20, 6);
  });

  it("count two operations for each multiply-accumulate of linear layers and attention", () => {
    const { flops } = costsOf(LLAMA_8B, { seqLength: 128, batchSize: 2 });
    const linear = 8_030_261_248 - 128256 * 4096 - (2 * 32 + 1) * 4096;
    expect(flops).toBe(2 * (linear * 256 + 2 * 32 * 2 * 128 * 128 * 4096));
  });

  it("count the output layer's operations also where it is tied", () => {
    const tied = readArchitecture({
      ...{ architectures: ["LlamaForCausalLM"], num_hidden_layers: 1, hidden_size: 8, intermediate_size: 8 },
      num_attention_heads: 1,
      vocab_size: 10,
      tie_word_embeddings: true,
    });
    expect(costsOf(tied, { seqLength: 1, batchSize: 1 }).flops).toBe(2 * (10 * 8 + 3 * 64 + 4 * 64 + 2 * 8));
  });
});

describe("searchSubnets", () => {
  it("finds what walking the space by hand finds", () => {
    fc.assert(
      fc.property(fc.integer({ min: 40, max: 100 }), fc.integer({ min: 40, max: 100 }), (params, memory) => {
        const found = searchSubnets(LLAMA_8B, SPACE, parseBounds({ params: `${params}%`, memory_mb: `${memory}%` }), {
          ...WORKLOAD,
          topK: 3,
        });
        const all = SPACE.num_layers.flatMap((num_layers) =>
          SPACE.hidden_size.flatMap((hidden_size) =>
            SPACE.num_attention_heads.flatMap((num_attention_heads) =>
              (SPACE.ffn_hidden_size ?? []).map((ffn_hidden_size) => ({ num_layers, hidden_size, num_attention_heads, ffn_hidden_size })),
            ),
          ),
        );
        const counted = all.map((sizes) => ({
          sizes,
          costs: costsOf(withHyperparameters(LLAMA_8B, { ...LLAMA_8B.hyperparameters, ...sizes }), WORKLOAD),
        }));
        const within = counted.filter(
          ({ costs }) => costs.params <= (params / 100) * found.parent.params && costs.memory_mb <= (memory / 100) * found.parent.memory_mb,
        );
        expect(found.feasible).toBe(within.length);
        const largest = within.map(({ costs }) => costs.params).sort((a, b) => b - a);
        expect(found.candidates.map(({ costs }) => costs.params)).toEqual(largest.slice(0, 3));
      }),
      { numRuns: 20 },
    );
  });

  it("counts each candidate as the family's table does", () => {
    const { candidates } = searchSubnets(LLAMA_8B, SPACE, parseBounds({ params: 6e9 }), { ...WORKLOAD, topK: 50 });
    for (const { exportConfig, costs } of candidates) {
      expect(costs.params).toBe(countParams(withHyperparameters(LLAMA_8B, { ...LLAMA_8B.hyperparameters, ...exportConfig })));
      expect(costs.params).toBeLessThanOrEqual(6e9);
    }
  });

  it("sorts by active_params, then params, then memory, then flops", () => {
    const primary = (bounds: Record<string, unknown>): string =>
      searchSubnets(LLAMA_8B, SPACE, parseBounds(bounds), { ...WORKLOAD, topK: 1 }).primary;
    expect(primary({ flops: "90%", memory_mb: "90%" })).toBe("memory_mb");
    expect(primary({ params: "90%", active_params: "90%", memory_mb: "90%" })).toBe("active_params");
    expect(primary({ flops: "90%" })).toBe("flops");
  });

  it("says how near the space comes to a bound that it cannot meet", () => {
    expect(() => searchSubnets(LLAMA_8B, SPACE, parseBounds({ params: 1e9 }), { ...WORKLOAD, topK: 1 })).toThrow(
      /params <= 1,000,000,000 cannot be met: the smallest subnet of the space has 2,940,080,640/,
    );
  });

  it("leaves out what the filter refuses", () => {
    const candidateFilter = ({ exportConfig }: { exportConfig: { num_layers: number } }): boolean => exportConfig.num_layers === 32;
    const { candidates } = searchSubnets(LLAMA_8B, SPACE, parseBounds({ params: 6e9 }), { ...WORKLOAD, topK: 5, candidateFilter });
    expect(candidates.map(({ exportConfig }) => exportConfig.num_layers)).toEqual([32, 32, 32, 32, 32]);
    expect(() =>
      searchSubnets(LLAMA_8B, SPACE, parseBounds({ params: 6e9 }), { ...WORKLOAD, topK: 5, candidateFilter: () => false }),
    ).toThrow(/the candidate filter takes none of the \d{3} subnets within the bounds/);
  });
});

describe("a hybrid", () => {
  const parent = readArchitecture(nemotron3());
  const { params, active_params } = costsOf(parent, WORKLOAD);

  it("finds what walking the space by hand finds, in every dimension", () => {
    const options = { ...SPACE_DEFAULTS, maxWidthPruning: 0.2, maxDepthPruning: 0, hparamsToSkip: ["num_layers"] };
    const space = searchSpace(parent.hyperparameters, options);
    const names = Object.keys(space) as (keyof typeof space)[];
    let all: Hyperparameters[] = [parent.hyperparameters];
    for (const name of names) all = all.flatMap((sizes) => (space[name] ?? []).map((size) => ({ ...sizes, [name]: size })));
    const counted = all.map((sizes) => costsOf(withHyperparameters(parent, sizes), WORKLOAD));
    const bounds = { params: 0.9 * params, active_params: 0.93 * active_params, memory_mb: "92%", flops: "95%" };
    const found = searchSubnets(parent, space, parseBounds(bounds), { ...WORKLOAD, topK: 5 });
    const within = counted.filter(
      (costs) =>
        costs.params <= 0.9 * params &&
        costs.active_params <= 0.93 * active_params &&
        costs.memory_mb <= 0.92 * found.parent.memory_mb &&
        costs.flops <= 0.95 * found.parent.flops,
    );
    expect(within.length).toBeGreaterThan(100);
    expect(found.feasible).toBe(within.length);
    const largest = within.sort((a, b) => b.active_params - a.active_params).slice(0, 5);
    expect(found.candidates.map(({ costs }) => costs.active_params)).toEqual(largest.map((costs) => costs.active_params));
    for (const { exportConfig, costs } of found.candidates) {
      expect(costs).toEqual(costsOf(withHyperparameters(parent, { ...parent.hyperparameters, ...exportConfig }), WORKLOAD));
    }
  });

  it("counts the layers that stay, of whatever kind they are", () => {
    const space = searchSpace(parent.hyperparameters, { ...SPACE_DEFAULTS, maxDepthPruning: 0.5, maxWidthPruning: 0 });
    const sparseFirst = [...parent.layers.keys()].sort((a, b) => Number(parent.layers[b] === "moe") - Number(parent.layers[a] === "moe"));
    const keptLayers = (n: number): number[] => sparseFirst.slice(0, n).sort((a, b) => a - b);
    const kinds = keptLayers(28).flatMap((layer) => parent.layers[layer] ?? []);
    const found = searchSubnets(parent, space, parseBounds({ params: params * 2 }), { ...WORKLOAD, topK: 50, keptLayers });
    const candidate = found.candidates.find(({ exportConfig }) => exportConfig.num_layers === 28);
    const child = withHyperparameters(parent, { ...parent.hyperparameters, num_layers: 28 }, kinds);
    expect(candidate?.costs).toEqual(costsOf(child, WORKLOAD));
    expect(kinds.filter((kind) => kind === "moe")).toHaveLength(23);
  });
});

describe("a hybrid whose layers are not chosen yet", () => {
  const small = readArchitecture(NETWORKS["nemotronH"] ?? {});
  const steps = { hidden_size_divisor: 8, ffn_hidden_size_divisor: 8, num_layers_divisor: 1, num_moe_experts_divisor: 1 };
  const space = searchSpace(small.hyperparameters, { ...SPACE_DEFAULTS, ...steps, maxDepthPruning: 0.4 });

  it.each(METRICS)("can come as near to a bound on %s as the choice of layers that costs least", (metric) => {
    const smallest = Object.fromEntries(Object.entries(space).map(([name, sizes]) => [name, sizes[0]]));
    const choices = choose(small.layers, space.num_layers[0] ?? 0);
    expect(choices).toHaveLength(56);
    const costs = choices.map((kinds) => costsOf(withHyperparameters(small, { ...small.hyperparameters, ...smallest }, kinds), WORKLOAD));
    const least = Math.min(...costs.map((all) => all[metric]));
    const outlined = outlineSubnets(small, space, parseBounds({ [metric]: least }), WORKLOAD);
    expect(outlined).toMatchObject({ limits: { [metric]: least }, spaceSize: spaceSize(space) });
    const below = parseBounds({ [metric]: least * (1 - 1e-9) });
    const shown = least.toLocaleString("en-US", { maximumFractionDigits: 1 });
    expect(() => outlineSubnets(small, space, below, WORKLOAD)).toThrow(
      `the smallest subnet of the space has ${shown}, whichever layers stay`,
    );
  });
});

/** Every choice of n of some layers, in order. */
function choose<T>([first, ...rest]: readonly T[], n: number): T[][] {
  if (n === 0) return [[]];
  return first === undefined ? [] : [...choose(rest, n - 1).map((chosen) => [first, ...chosen]), ...choose(rest, n)];
}

describe("parseBounds", () => {
  it.each([["101%"], ["0%"], [0], [-1], [Number.NaN], ["6B"], [null], [{}]])("refuses %j", (value) => {
    expect(() => parseBounds({ params: value })).toThrow(/params .* is no upper bound/);
  });
  it("reads numbers and percentages", () => {
    expect(parseBounds({ params: 6e9, flops: "62.5 %" })).toEqual({
      params: { kind: "absolute", most: 6e9 },
      flops: { kind: "share", share: 0.625 },
    });
  });
});

it("searches what the network has", () => {
  expect(Object.keys(SPACE).sort()).toEqual(SEARCHED.filter((name) => LLAMA_8B.hyperparameters[name] !== undefined).sort());
});
