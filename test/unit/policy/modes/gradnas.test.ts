import { describe, expect, it } from "vitest";
import { encodePlan, parsePlan } from "../../../../src/checkpoint/planFile.js";
import { readArchitecture, withLayerSizes } from "../../../../src/policy/architecture.js";
import { checkPlan } from "../../../../src/policy/checkPlan.js";
import { countParams } from "../../../../src/policy/cost.js";
import { layerCosts } from "../../../../src/policy/gradients/costs.js";
import { readLayerSizes } from "../../../../src/policy/gradients/layerSizes.js";
import { maskPoints } from "../../../../src/policy/gradients/masks.js";
import { changedModules } from "../../../../src/policy/gradients/modules.js";
import { planByGradients } from "../../../../src/policy/gradients/plan.js";
import type { GradientSpace } from "../../../../src/policy/gradients/space.js";
import { checkProfile, profileSpace } from "../../../../src/policy/modes/fastnas.js";
import { chooseByGradients, type GradientSearch, unscoredSpace } from "../../../../src/policy/modes/gradnas.js";
import { parseNetworkConstraint } from "../../../../src/policy/modes/networkConstraint.js";
import type { Plan } from "../../../../src/policy/plan.js";
import type { Accumulators } from "../../../../src/policy/scores.js";
import { costsOf } from "../../../../src/policy/search/search.js";
import { sliceTensors } from "../../../../src/policy/slices.js";
import { expectedTensors } from "../../../../src/policy/tensors.js";
import type { Config } from "../../../fixtures/checkpoints.js";
import { IMPLIED_HEADS, TINY } from "../../../fixtures/families.js";
import { FINE, plantedGradients, randomGradients, spaceOf } from "../../../fixtures/gradients.js";

const WORKLOAD = { seqLength: 16, batchSize: 2 };
const GROUPED = { ...TINY.llama, num_attention_heads: 8, num_key_value_heads: 2, head_dim: 4, num_hidden_layers: 3 };
const FAMILIES = Object.entries({ ...IMPLIED_HEADS, llama: TINY.llama, mistral: TINY.mistral, qwen2: TINY.qwen2, qwen3: TINY.qwen3 });

function choose(space: GradientSpace, scores: Accumulators, constraint: Record<string, unknown>): GradientSearch {
  const costs = layerCosts(space.architecture, WORKLOAD);
  const profile = profileSpace(unscoredSpace(space, costs), parseNetworkConstraint("gradnas", constraint));
  checkProfile(profile);
  return chooseByGradients(space, scores, profile, costs);
}

function planned(config: Config, constraint: Record<string, unknown>, options = FINE as Record<string, unknown>, seed = 5): Plan {
  const space = spaceOf(config, options);
  return planByGradients(space, config, choose(space, randomGradients(config, seed), constraint));
}

describe.each(FAMILIES)("%s", (_name, config) => {
  const architecture = readArchitecture(config);

  it("is cut, layer by layer, to what its tensors and modules then have", () => {
    const plan = planned(config, { params: "75%" });
    const layers = plan.layers ?? [];
    expect(layers).toHaveLength(4);
    const child = withLayerSizes(architecture, layers);
    const cut = sliceTensors(architecture, plan.kept, expectedTensors(architecture));
    const shapes = cut.tensors.map(({ name, shape }) => ({ name, shape }));
    expect(shapes).toEqual(expectedTensors(child).map(({ stored: { name, shape } }) => ({ name, shape })));
    expect(plan.child.params).toBe(shapes.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0));
    expect(readLayerSizes(architecture, shapes)).toEqual(layers);

    checkPlan(architecture, config, parsePlan(encodePlan({ ...plan, fingerprint: null }), "plan.json"), "plan.json");
    const linear = changedModules(architecture, layers).filter(
      ({ attributes }) => "out_features" in attributes || "in_features" in attributes,
    );
    for (const { module, attributes } of linear) {
      const [out, into] = shapes.find(({ name }) => name === `${module}.weight`)?.shape ?? [];
      expect({ out_features: out, in_features: into }).toMatchObject(attributes);
    }
  });

  it("counts its layers as what it is made of counts", () => {
    const space = spaceOf(config);
    const found = choose(space, randomGradients(config, 3), { flops: "80%" });
    const count = layerCosts(architecture, WORKLOAD);
    expect(found.costs.params).toBe(countParams(withLayerSizes(architecture, found.layers)));
    const whole = costsOf(architecture, WORKLOAD);
    expect(found.costs.flops).toBeLessThanOrEqual(0.8 * whole.flops);
    const { ffn_hidden_size = 0, num_attention_heads, num_query_groups } = architecture.hyperparameters;
    const parents = architecture.layers.map(() => ({ ffn_hidden_size, num_attention_heads, num_query_groups }));
    expect(count(parents)).toMatchObject({ params: whole.params, flops: whole.flops });
  });

  it("keeps layers alike where they have to be, in a config that says so", () => {
    const plan = planned(config, { params: "85%" }, { ...FINE, uniform: true });
    expect(plan.layers).toBeUndefined();
    const child = readArchitecture({ ...config, ...plan.config });
    expect(child.hyperparameters).toEqual(plan.child.hyperparameters);
    if (architecture.table.impliedHeadDim) {
      expect(child.hyperparameters.num_attention_heads).toBe(architecture.hyperparameters.num_attention_heads);
    }
    const cut = sliceTensors(architecture, plan.kept, expectedTensors(architecture));
    expect(cut.tensors.map(({ shape }) => shape)).toEqual(expectedTensors(child).map(({ stored }) => stored.shape));
    checkPlan(architecture, config, parsePlan(encodePlan({ ...plan, fingerprint: null }), "plan.json"), "plan.json");
  });
});

describe("masks", () => {
  it("stand on the outputs of BERT's and GPT-J's first linear layer, and on what the down projection of a gated MLP reads", () => {
    expect(maskPoints(readArchitecture(IMPLIED_HEADS.bertMaskedLm)).slice(2, 4)).toEqual([
      {
        key: "bert.encoder.layer.1.intermediate.dense.out_features",
        module: "bert.encoder.layer.1.intermediate.dense",
        side: "output",
        units: 44,
      },
      {
        key: "bert.encoder.layer.1.attention.self.num_attention_heads",
        module: "bert.encoder.layer.1.attention.output.dense",
        side: "input",
        units: 4,
      },
    ]);
    expect(maskPoints(readArchitecture(IMPLIED_HEADS.gptj))[0]).toMatchObject({
      key: "transformer.h.0.mlp.fc_in.out_features",
      side: "output",
    });
    expect(maskPoints(readArchitecture(TINY.llama))[0]).toMatchObject({
      key: "model.layers.0.mlp.gate_proj.out_features",
      module: "model.layers.0.mlp.down_proj",
      side: "input",
    });
  });

  it("are none in families of experts, which is said", () => {
    expect(() => spaceOf(TINY.mixtral)).toThrow(/BAD_MODE.*no masks for the family mixtral[\s\S]*llama/);
  });
});

describe("the choice", () => {
  it("loses as little as any selection under the constraint", () => {
    const config = { ...GROUPED, num_hidden_layers: 2 };
    const space = spaceOf(config);
    const count = layerCosts(space.architecture, WORKLOAD);
    for (let seed = 0; seed < 5; seed++) {
      const scores = randomGradients(config, seed);
      const found = choose(space, scores, { params: "75%" });
      const most = 0.75 * countParams(space.architecture);
      expect(count(found.layers).params).toBeLessThanOrEqual(most);
      expect(-found.score).toBe(leastLoss(space, found, (layers) => count(layers).params <= most));
    }
  });

  it("meets a bound at the smallest network, whatever groups its heads would rather be in", () => {
    const config = { ...GROUPED, num_key_value_heads: 4 };
    const space = spaceOf(config, { ...FINE, attention: { "*": { heads_divisor: 4 } } });
    const [smallest = 0] = space.hyperparameters.filter(({ dimension }) => dimension !== "ffn").map(({ choices }) => choices[0]);
    expect(smallest).toBe(4);
    const least = layerCosts(
      space.architecture,
      WORKLOAD,
    )(space.architecture.layers.map(() => ({ ffn_hidden_size: 12, num_attention_heads: 4, num_query_groups: 2 })));
    const { costs } = choose(space, randomGradients(config, 4), { params: least.params });
    expect(costs.params).toBe(least.params);
  });

  it("does not depend on the scale of the gradients", () => {
    const space = spaceOf(GROUPED);
    const scores = randomGradients(GROUPED, 8);
    const small = new Map([...scores].map(([name, { shape, data }]) => [name, { shape, data: data.map((score) => score * 2 ** -40) }]));
    expect(choose(space, small, { params: "70%" }).selection).toEqual(choose(space, scores, { params: "70%" }).selection);
  });

  it("takes units and layers that the loss does not depend on first", () => {
    const config = IMPLIED_HEADS.bert;
    const useless = "encoder.layer.2.";
    const scores = plantedGradients(config, (name, unit) => (name.startsWith(useless) ? 0 : 1 + (unit % 3)));
    const space = spaceOf(config);
    const { layers, selection, score } = choose(space, scores, { params: "95%" });
    expect(score).toBe(-0);
    expect(layers[2]).toEqual({ ffn_hidden_size: 12, num_attention_heads: 1, num_query_groups: 1 });
    expect(selection["encoder.layer.1.intermediate.dense.out_features"]).toBe(44);
  });

  it("keeps planted units", () => {
    const config = IMPLIED_HEADS.bert;
    const scores = plantedGradients(config, (_, unit) => (unit % 4 === 1 ? 10 : 1e-3 * unit));
    const space = spaceOf(config);
    const { kept } = planByGradients(space, config, choose(space, scores, { params: "60%" }));
    for (const channels of Object.values(kept.ffn as Record<string, number[]>)) {
      expect(channels).toEqual(expect.arrayContaining([1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41].slice(0, channels.length)));
    }
    for (const heads of Object.values(kept.group as Record<string, number[]>)) expect(heads).toContain(1);
  });

  it("says what the least is where the constraint cannot be met", () => {
    const space = spaceOf(GROUPED);
    expect(() => choose(space, randomGradients(GROUPED, 1), { params: "5%" })).toThrow(
      /BAD_CONSTRAINTS.*params .* cannot be met: the smallest network has \d+/,
    );
  });

  it("refuses scores of another network, and those that are not finite", () => {
    const space = spaceOf(GROUPED);
    expect(() => choose(space, randomGradients(TINY.llama, 1), { params: "70%" })).toThrow(
      /BAD_SCORES.*has 44? scores|BAD_SCORES.*4 scores/,
    );
    const scores = plantedGradients(GROUPED, (name, unit) => (name.includes("layers.1.mlp") && unit === 3 ? Number.NaN : 1));
    expect(() => choose(space, scores, { params: "70%" })).toThrow(/BAD_SCORES.*layers\.1\.mlp\.gate_proj\.out_features\[3\] is NaN/);
  });
});

/** The least that the worst hyperparameter of a selection loses, of all selections under a constraint. */
function leastLoss(
  { hyperparameters, architecture }: GradientSpace,
  { cutter }: GradientSearch,
  isMet: (layers: GradientSearch["layers"]) => boolean,
): number {
  let least = Number.POSITIVE_INFINITY;
  const { ffn_hidden_size = 0, num_attention_heads, num_query_groups } = architecture.hyperparameters;
  const walk = (at: number, layers: GradientSearch["layers"], loss: number): void => {
    const one = hyperparameters[at];
    if (!one) {
      if (isMet(layers)) least = Math.min(least, loss);
      return;
    }
    for (const count of one.choices) {
      const { sizes, cost } = cutter(one, count);
      const next = layers.map((layer, index) => (one.layers.includes(index) ? { ...layer, ...sizes } : layer));
      walk(at + 1, next, Math.max(loss, cost));
    }
  };
  walk(
    0,
    architecture.layers.map(() => ({ ffn_hidden_size, num_attention_heads, num_query_groups })),
    0,
  );
  return least;
}

describe("options", () => {
  it("hold what a pattern leaves as it is", () => {
    const held = spaceOf(IMPLIED_HEADS.bert, { ...FINE, attention: { "*layer.1*": null, "*layer.2*": { heads_divisor: 2 } } });
    const choices = Object.fromEntries(held.hyperparameters.map((one) => [one.name, one.choices]));
    expect(choices["encoder.layer.1.attention.self.num_attention_heads"]).toEqual([4]);
    expect(choices["encoder.layer.2.attention.self.num_attention_heads"]).toEqual([2, 4]);
    expect(choices["encoder.layer.0.attention.self.num_attention_heads"]).toEqual([1, 2, 3, 4]);
  });

  it("that leave nothing to cut are refused", () => {
    expect(() => spaceOf(IMPLIED_HEADS.bert, { "nn.Linear": { "*": null }, attention: { "*": null } })).toThrow(
      /BAD_OPTION.*no layer of this bert/,
    );
  });
});

describe("a plan of layers", () => {
  const plan = planned(GROUPED, { params: "75%" });
  const tampered = (change: Partial<Plan>): Plan => ({ ...plan, ...change });

  it.each([
    [{ layers: plan.layers?.slice(1) ?? [] }, /sizes of 2 layers, the checkpoint has 3 layers/],
    [{ layers: plan.layers?.map((sizes) => ({ ...sizes, num_query_groups: 4 })) ?? [] }, /layer 0 has sizes that none/],
    [{ layers: plan.layers?.map((sizes) => ({ ...sizes, ffn_hidden_size: 3 })) ?? [] }, /hyperparameters are not|ffn of 0 keeps/],
    [{ kept: {} }, /it keeps no \w+ positions/],
  ])("that was tampered with is refused: %#", (change, message) => {
    expect(() => checkPlan(readArchitecture(GROUPED), GROUPED, tampered(change), "plan.json")).toThrow(message);
  });
});

it.each([
  ["nn.Linear", { "nn.Linear": { "*": {}, "encoder.layer.9.*": null } }],
  ["attention", { attention: { atention: null } }],
])("refuses a pattern of %s that no module matches", (kind, options) => {
  expect(() => spaceOf(TINY.llama, options)).toThrow(
    expect.objectContaining({
      code: "BAD_OPTION",
      detail: expect.stringContaining(`${kind} "`),
      hint: expect.stringMatching(/did you mean/),
    }),
  );
});
