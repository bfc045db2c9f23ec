import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  Bridge,
  type Model,
  negativeLoss,
  type Progress,
  type PruneConfig,
  type PruneResult,
  prune,
  python,
  type ScoreFunc,
} from "../../src/index.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { type Config, TINY_LLAMA, writeScores, writeTokens } from "../fixtures/checkpoints.js";
import { TINY } from "../fixtures/families.js";
import { type Asked, byLoss, FINE, FINE_SORTED, makePlace, pruneOnce } from "../fixtures/pruneOnce.js";

const BOUNDS = { params: "85%" };
const NETWORKS: [string, Config][] = [
  ["llama", TINY_LLAMA],
  ["nemotron-h", { ...TINY.nemotronH, vocab_size: 50 }],
];

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_PYTHON);
});
afterAll(() => bridge?.close());

/** What a model computes, to the last bit. */
async function outputsOf(model: Model): Promise<Uint8Array> {
  return (await model.forward(BATCHES[0] ?? [])).data;
}

describe.each(NETWORKS)("a search over %s", (_family, config) => {
  it("takes the candidate that scores best, whoever judges, and prunes the model to it", async () => {
    const { parent } = await makePlace(config);
    const heldOut = await writeTokens(join(parent, "held-out.safetensors"), [5, 2, 12], (i) => BATCHES.flat(2)[i] ?? 0);
    const results = [];
    for (const judge of [() => byLoss, () => python("calibration:score"), (model: Model) => negativeLoss(heldOut, model)]) {
      await using model = await bridge.open(parent);
      const scoreFunc = judge(model);
      const { stateDict, subnet } = await prune(model, FINE, BOUNDS, null, { dataLoader: BATCHES, scoreFunc, topK: 4 });
      const scores = stateDict.search?.candidates.map(({ score }) => score ?? Number.NaN) ?? [];
      expect(scores).toHaveLength(4);
      expect(stateDict.best?.score).toBe(Math.max(...scores));
      expect(stateDict.plan.exportConfig).toEqual(stateDict.best?.exportConfig);
      expect(stateDict.plan.child.params).toBe(stateDict.best?.costs.params);
      expect(stateDict.costs.child).toEqual(stateDict.best?.costs);
      expect(subnet).toBe(model);
      expect(-(await subnet.loss(BATCHES))).toBeCloseTo(stateDict.best?.score ?? 0, 5);
      results.push({ plan: stateDict.plan, scores });
    }
    for (const { plan, scores } of results) {
      expect(plan).toEqual(results[0]?.plan);
      for (const [i, score] of scores.entries()) expect(score).toBeCloseTo(results[0]?.scores[i] ?? Number.NaN, 5);
    }
  });

  it("may prefer a smaller one, and of equals takes the larger", async () => {
    const { parent } = await makePlace(config);
    const calibrated = { dataLoader: BATCHES, topK: 3 };
    const smallest = await pruneOnce(bridge, parent, { ...calibrated, scoreFunc: ({ hyperparameters: h }) => -h.hidden_size });
    const { candidates = [] } = smallest.stateDict.search ?? {};
    expect(smallest.stateDict.best?.exportConfig.hidden_size).toBe(
      Math.min(...candidates.map(({ exportConfig: { hidden_size } }) => hidden_size)),
    );
    const alike = await pruneOnce(bridge, parent, { ...calibrated, scoreFunc: () => 1 });
    expect(alike.stateDict.best).toEqual({ ...candidates[0], score: 1 });
  });

  it("leaves the parent as it is until it has decided, to the last bit", async () => {
    const { parent, checkpoint } = await makePlace(config);
    await using model = await bridge.open(parent);
    const before = await outputsOf(model);
    let judged = 0;
    const failures: [ScoreFunc | ReturnType<typeof python>, unknown][] = [
      [() => Number.NaN, { code: "BAD_OPTION", detail: "scoreFunc gave NaN where a finite number belongs" }],
      [() => Promise.reject(new Error("the labels are gone")), new Error("the labels are gone")],
      [python("calibration:nan"), { code: "PYTHON_FAILED" }],
      [python("calibration:fail"), { code: "PYTHON_FAILED" }],
      [(view) => (judged++ < 2 ? byLoss(view) : Promise.reject(new Error("the labels are gone"))), new Error("the labels are gone")],
      [async (view) => (await byLoss(view)) + (await view.loss([[[50]]])), { code: "BAD_DATA" }],
    ];
    for (const [scoreFunc, failure] of failures) {
      const work = prune(model, FINE, BOUNDS, null, { dataLoader: BATCHES, checkpoint, scoreFunc });
      await expect(work).rejects.toMatchObject(failure as object);
      expect(model.plan).toBeUndefined();
      expect(model.hyperparameters).toEqual(model.parent.architecture.hyperparameters);
      expect(await outputsOf(model)).toEqual(before);
    }
    expect(judged).toBe(3);
    await prune(model, FINE, BOUNDS, null, { dataLoader: BATCHES, checkpoint, scoreFunc: byLoss, topK: 3 });
    await using again = await bridge.open(parent);
    expect(await outputsOf(again)).toEqual(before);
  });
});

describe("a search without a scoreFunc", () => {
  it("takes the largest candidate, and loads nothing where positions rank", async () => {
    const { parent } = await makePlace();
    const { stateDict, phases, scores } = await pruneOnce(bridge, parent, { topK: 3 }, { mode: FINE_SORTED });
    expect(stateDict.best).toEqual(stateDict.search?.candidates[0]);
    expect(stateDict.best).not.toHaveProperty("score");
    expect([phases, scores, stateDict.calibration]).toEqual([[], undefined, undefined]);
  });

  it("calibrates where scores rank, and runs no candidate", async () => {
    const { parent } = await makePlace();
    const { phases, stateDict } = await pruneOnce(bridge, parent, { dataLoader: BATCHES });
    expect(phases).not.toContain("scoring");
    expect(stateDict.timings.scoring).toBe(0);
    expect(stateDict.calibration).toMatchObject({ batches: "5", samples: "10", tokens: "120" });
  });
});

describe("what cannot be", () => {
  const impossible: [string, PruneConfig, Asked, object][] = [
    [
      "a bound below the space",
      {},
      { constraints: { params: 1000 } },
      {
        code: "BAD_CONSTRAINTS",
        detail: expect.stringMatching(/params <= 1,000 cannot be met: the smallest subnet of the space has [\d,]+$/),
      },
    ],
    [
      "one bound of two",
      {},
      { constraints: { params: "85%", memory_mb: 0.5 } },
      { code: "BAD_CONSTRAINTS", detail: expect.stringMatching(/^memory_mb <= 0.5 cannot be met/) },
    ],
    [
      "sizes beside a bound",
      {},
      { constraints: { export_config: { hidden_size: 16 }, params: "85%" } },
      { code: "BAD_CONSTRAINTS", detail: expect.stringMatching(/export_config stands alone/) },
    ],
    ["a bound without a value", {}, { constraints: { params: undefined } }, { code: "BAD_CONSTRAINTS" }],
    ["a filter that lets nothing through", { candidateFilter: () => false }, {}, { code: "BAD_CONSTRAINTS" }],
    ["a hyperparameter that is not searched", { hparamsToSkip: ["num_query_groups"] }, {}, { code: "BAD_OPTION" }],
    [
      "a judge of given sizes",
      {},
      { constraints: { export_config: { hidden_size: 16 } } },
      { code: "BAD_OPTION", detail: expect.stringMatching(/a search under bounds alone uses scoreFunc$/) },
    ],
    ["a score file beside a data loader", { scores: "scores.safetensors" }, {}, { code: "BAD_OPTION" }],
  ];
  it.each(impossible)("is refused before anything is loaded or drawn: %s", async (_what, config, asked, refusal) => {
    const { parent, checkpoint } = await makePlace();
    let drawn = 0;
    const dataLoader = (function* () {
      drawn += 1;
      yield* BATCHES;
    })();
    const phases: string[] = [];
    await using model = await bridge.open(parent);
    const { constraints = BOUNDS } = asked;
    const work = prune(model, FINE, constraints, null, {
      dataLoader,
      checkpoint,
      scoreFunc: byLoss,
      ...config,
      onProgress: ({ phase }) => phases.push(phase),
    });
    await expect(work).rejects.toMatchObject(refusal);
    expect([drawn, phases, model.plan]).toEqual([0, [], undefined]);
  });
});

describe("the state dict", () => {
  const cases: [string, PruneConfig, Asked][] = [
    ["of a judged search", { dataLoader: BATCHES, scoreFunc: byLoss, topK: 2 }, { constraints: { params: "85%", flops: undefined } }],
    ["of a search that nothing judges", { dataLoader: BATCHES }, {}],
    ["of a search by position", {}, { mode: FINE_SORTED }],
    ["of given sizes", { dataLoader: BATCHES }, { constraints: { export_config: { hidden_size: 16, num_layers: 2 } } }],
  ];
  it.each(cases.flatMap(([what, ...rest]) => NETWORKS.map(([family, config]) => [what, family, config, ...rest] as const)))(
    "%s is plain JSON: %s",
    async (_what, _family, config, pruneConfig, asked) => {
      const { parent, checkpoint } = await makePlace(config);
      for (let run = 0; run < 2; run++) {
        const { stateDict } = await pruneOnce(bridge, parent, { ...pruneConfig, checkpoint }, asked);
        expect(JSON.parse(JSON.stringify(stateDict))).toStrictEqual(stateDict);
        expect(stateDict.history).toHaveLength(1);
        expect(stateDict.timings.total).toBeGreaterThanOrEqual(stateDict.timings.calibration + stateDict.timings.scoring);
      }
    },
  );

  it("says what was asked, also where the caller goes on with the same object", async () => {
    const { parent } = await makePlace();
    const constraints: Record<string, unknown> = { params: "85%" };
    const { stateDict } = await pruneOnce(bridge, parent, {}, { constraints, mode: FINE_SORTED });
    constraints["params"] = "1%";
    expect(stateDict.constraints).toEqual({ params: "85%" });
    expect(stateDict.history).toMatchObject([{ constraints: { params: "85%" }, params: stateDict.plan.child.params }]);
  });
});

describe("verbose", () => {
  it("tells the space and the bounds before candidates are judged, and then the candidates with their scores", async () => {
    const { parent } = await makePlace();
    const told: string[] = [];
    const scoreFunc: ScoreFunc = async (view) => {
      told.push("judging");
      return byLoss(view);
    };
    const { stateDict } = await pruneOnce(bridge, parent, { dataLoader: BATCHES, scoreFunc, topK: 2, verbose: (text) => told.push(text) });
    const [space, ...rest] = told;
    expect(space).toMatch(/^hyperparameter +choices/);
    expect(space).toMatch(/params +21,576 +18,340/);
    expect(space).toMatch(/\d+ subnets, \d+ of them within the bounds$/);
    const scored = (n: number): unknown => expect.stringMatching(new RegExp(`^candidate ${n} of 2: score -?\\d`));
    expect(rest.slice(0, -1)).toEqual(["judging", scored(1), "judging", scored(2)]);
    for (const { score = 0, costs } of stateDict.search?.candidates ?? [])
      expect(rest.at(-1)).toMatch(new RegExp(`${costs.params.toLocaleString("en-US")} .*${score.toPrecision(6)}`));
  });
});

describe("progress", () => {
  it("counts the candidates that are judged", async () => {
    const { parent } = await makePlace();
    await using model = await bridge.open(parent);
    const told: Progress[] = [];
    const onProgress = (progress: Progress): unknown => progress.phase === "scoring" && told.push(progress);
    await prune(model, FINE_SORTED, BOUNDS, null, { scoreFunc: () => 1, topK: 2, onProgress });
    expect(told).toMatchObject([0, 1, 2].map((done) => ({ done, total: 2, unit: "candidates" })));
    expect(told.map(({ etaSeconds }) => etaSeconds)).toEqual([undefined, expect.any(Number), 0]);
  });
});

describe("verbose about given sizes", () => {
  it("tells before anything is measured what they come to", async () => {
    const { parent } = await makePlace();
    const told: string[] = [];
    const dataLoader = (function* () {
      told.push("calibrating");
      yield* BATCHES;
    })();
    const constraints = { export_config: { hidden_size: 16 } };
    const { stateDict } = await pruneOnce(bridge, parent, { dataLoader, verbose: (text) => told.push(text) }, { constraints });
    const [outline, ...rest] = told;
    expect(outline).toMatch(/^ +parent +child\n/);
    expect(outline).toMatch(/hidden_size +24 +16\n/);
    expect(outline).toMatch(new RegExp(`params +21,576 +${stateDict.plan.child.params.toLocaleString("en-US")}\n`));
    expect(rest).toEqual(["calibrating"]);
  });
});

describe("a score file", () => {
  it("ranks in place of a calibration", async () => {
    const { parent } = await makePlace();
    const scores = await writeScores(join(parent, "planted.safetensors"), TINY_LLAMA, (_, i) => i + 1);
    const { stateDict, phases }: PruneResult & { phases: readonly string[] } = await pruneOnce(bridge, parent, { scores });
    const { hidden_size: hidden } = stateDict.plan.child.hyperparameters;
    expect(stateDict.plan.kept.hidden).toEqual(Array.from({ length: hidden }, (_, i) => 24 - hidden + i));
    expect(phases).toEqual([]);
  });
});
