import { describe, expect, it } from "vitest";
import { readArchitecture } from "../../../../src/policy/architecture.js";
import { planMinitron, type ScorableModel, type SearchListener, searchMinitron } from "../../../../src/policy/modes/minitron.js";
import { type ParsedMode, parseModes } from "../../../../src/policy/modes/modes.js";
import { parseBounds } from "../../../../src/policy/search/bounds.js";
import type { Candidate } from "../../../../src/policy/search/search.js";
import { parseConfig } from "../../../../src/pruning/config.js";
import { asFloat32 } from "../../../../src/tensor.js";
import { type Config, plantedScores, TINY_LLAMA } from "../../../fixtures/checkpoints.js";
import { TINY } from "../../../fixtures/families.js";

const STEPS = { hidden_size_divisor: 4, ffn_hidden_size_divisor: 8, num_layers_divisor: 1 };

/** A model whose later positions are the more important, and which counts what is asked of it. */
function model(
  config: Config = TINY_LLAMA,
  evaluate?: (candidate: Candidate, index: number) => number | Promise<number>,
  importance: (name: string, position: number) => number = (_, position) => position + 1,
) {
  const asked = { scores: 0, evaluated: [] as Candidate[] };
  const scorable: ScorableModel = {
    architecture: readArchitecture(config),
    config,
    scores: async () => {
      asked.scores += 1;
      return new Map(plantedScores(config, importance).map(({ name, shape, ...tensor }) => [name, { shape, data: asFloat32(tensor) }]));
    },
    evaluate: evaluate && (async (_plan, candidate) => evaluate(candidate, asked.evaluated.push(candidate) - 1)),
  };
  return { scorable, asked };
}

type MinitronMode = Extract<ParsedMode, { name: "mcore_gpt_minitron" }>;

function search(scorable: ScorableModel, bounds: object, options: object = {}, modeOptions: object = {}, listener?: SearchListener) {
  const [mode] = parseModes({ mcore_gpt_minitron: { ...STEPS, ...modeOptions } }) as [MinitronMode]; // as many as are given
  return searchMinitron(scorable, parseBounds({ ...bounds }), { ...parseConfig(options), ...mode.options }, listener);
}

describe("searchMinitron", () => {
  it("evaluates the largest candidates one after the other, and takes the best", async () => {
    let running = 0;
    const { scorable, asked } = model(TINY_LLAMA, async (_, index) => {
      expect(++running).toBe(1);
      await Promise.resolve();
      running -= 1;
      return [0.5, 2, 1][index] ?? 0;
    });
    const { plan, found, candidates, best } = await search(scorable, { params: "80%" }, { topK: 3 });
    const params = candidates.map(({ costs }) => costs.params);
    expect(params).toEqual(params.toSorted((a, b) => b - a));
    expect(candidates.map(({ score }) => score)).toEqual([0.5, 2, 1]);
    expect(asked).toEqual({ scores: 1, evaluated: found.candidates });
    expect(best).toEqual(candidates[1]);
    expect(plan.exportConfig).toEqual(found.candidates[1]?.exportConfig);
    expect(plan.child.params).toBe(best.costs.params);
    expect(plan.kept.hidden).toEqual(
      Array.from({ length: plan.child.hyperparameters.hidden_size }, (_, i) => i + 24 - plan.child.hyperparameters.hidden_size),
    );
  });

  it.each([
    [[1, 1, 1], 0],
    [[-3, -1, -1], 1],
    [[-0.5, -0.5, -0.4], 2],
    [[0, -0, 0], 0],
  ])("takes the larger candidate of those that score alike: %j", async (scores, at) => {
    const { scorable } = model(TINY_LLAMA, (_, index) => scores[index] ?? 0);
    const { candidates, best } = await search(scorable, { params: "80%" }, { topK: 3 });
    expect(best).toBe(candidates[at]);
  });

  it("takes the largest candidate where nothing judges, without a score", async () => {
    const { scorable, asked } = model();
    const { candidates, best } = await search(scorable, { params: "80%" });
    expect(best).toBe(candidates[0]);
    expect(candidates.every((candidate) => !("score" in candidate))).toBe(true);
    expect(asked).toEqual({ scores: 1, evaluated: [] });
  });

  it("asks for no scores where positions rank", async () => {
    const { scorable, asked } = model();
    const { plan } = await search(scorable, { params: "80%" }, {}, { skip_sorting: true });
    expect(asked.scores).toBe(0);
    expect(plan.kept.hidden).toEqual(Array.from({ length: plan.child.hyperparameters.hidden_size }, (_, i) => i));
  });

  it("meets all bounds together", async () => {
    const { scorable } = model();
    const alone = await search(scorable, { params: "90%" }, { topK: 100 });
    const both = await search(scorable, { params: "90%", flops: "99.5%" }, { topK: 100 });
    const within = alone.candidates.filter(({ costs }) => costs.flops <= 0.995 * alone.found.parent.flops);
    expect(both.candidates).toEqual(within);
    expect(within.length).toBeGreaterThan(0);
    expect(within.length).toBeLessThan(alone.candidates.length);
  });

  it.each([
    [{ params: 100 }, {}, /params <= 100 cannot be met: the smallest subnet of the space has 13,232/],
    [{ params: "80%", memory_mb: 0.01 }, {}, /memory_mb <= 0 cannot be met/],
    [{ params: "80%" }, { candidateFilter: () => false }, /^the candidate filter takes none of the \d+ subnets within the bounds$/],
    [{ params: "80%" }, { hparamsToSkip: ["hidden_size", "ffn_hidden_size"] }, /params <= 17,260.8 cannot be met/],
  ])("refuses %j with %j before anything is measured", async (bounds, options, says) => {
    const { scorable, asked } = model(TINY_LLAMA, () => 0);
    await expect(search(scorable, bounds, options)).rejects.toMatchObject({ code: "BAD_CONSTRAINTS", detail: expect.stringMatching(says) });
    expect(asked).toEqual({ scores: 0, evaluated: [] });
  });

  it("stops at an evaluation that throws", async () => {
    const broken = new Error("the labels are gone");
    const { scorable, asked } = model(TINY_LLAMA, (_, index) => (index === 1 ? Promise.reject(broken) : 0));
    await expect(search(scorable, { params: "80%" }, { topK: 3 })).rejects.toBe(broken);
    expect(asked.evaluated).toHaveLength(2);
  });

  it("tells what it found before it evaluates, and every candidate as it is scored", async () => {
    const told: string[] = [];
    const { scorable } = model(TINY_LLAMA, (_, index) => {
      told.push(`evaluate ${index}`);
      return index;
    });
    const listener: SearchListener = {
      onFound: ({ candidates }) => told.push(`found ${candidates.length}`),
      onScored: ({ score }, index, of) => told.push(`scored ${index} of ${of}: ${score}`),
    };
    await search(scorable, { params: "80%" }, { topK: 2 }, {}, listener);
    expect(told).toEqual(["found 2", "evaluate 0", "scored 0 of 2: 0", "evaluate 1", "scored 1 of 2: 1"]);
  });
});

describe("layers of several kinds", () => {
  const depth = { maxDepthPruning: 0.5, maxWidthPruning: 0 };
  // Of a mamba, an mlp, a moe and an attention layer the third goes, which is the largest.
  const hybrid = () => model(TINY.nemotronH, undefined, (name, i) => (name === "layer_scores" && i === 2 ? 0 : i + 1));

  it("count as the ranking keeps them", async () => {
    const { best, plan } = await search(hybrid().scorable, { params: "99%" }, depth);
    expect(plan.kept.layer).toEqual([0, 1, 3]);
    expect(best.costs.params).toBe(plan.child.params);
  });

  it("are measured for a bound that the first ones exceed", async () => {
    const { scorable } = hybrid();
    const { plan } = await search(scorable, { params: "99%" }, depth);
    const bound = { params: plan.child.params };
    expect((await search(scorable, bound, depth)).plan).toEqual(plan);
    await expect(search(scorable, bound, depth, { skip_sorting: true })).rejects.toMatchObject({ code: "BAD_CONSTRAINTS" });
  });

  it("are refused before anything is measured where no choice of them is small enough", async () => {
    const { scorable, asked } = hybrid();
    await expect(search(scorable, { params: "5%" }, depth)).rejects.toMatchObject({
      code: "BAD_CONSTRAINTS",
      detail: expect.stringMatching(/^params <= .*, whichever layers stay$/),
    });
    expect(asked.scores).toBe(0);
  });
});

describe("planMinitron", () => {
  it("refuses a target before anything is measured", async () => {
    const { scorable, asked } = model();
    const options = { ...STEPS, mamba_head_dim_divisor: 8, num_moe_experts_divisor: 8, skip_sorting: false };
    await expect(planMinitron(scorable, { hidden_size: 25 }, options)).rejects.toMatchObject({ code: "BAD_EXPORT_CONFIG" });
    expect(asked.scores).toBe(0);
  });
});
