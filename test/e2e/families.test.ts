import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ScoreFile } from "../../src/checkpoint/scoreFile.js";
import { Bridge, type Parent, type PlanFile, plan, readParent, slice, type Tensor, verify } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import type { LayoutName } from "../../src/policy/families/table.js";
import { type PrunableName, prunableNames } from "../../src/policy/hyperparameters.js";
import { asFloat32 } from "../../src/tensor.js";
import { type Config, mulberry32, plantedScores, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { TINY } from "../fixtures/families.js";
import { type Reference, spelledOut, startReference } from "../fixtures/reference.js";

const twice = TINY.nemotronH.layers_block_type.flatMap((kind) => [kind, kind]);
const hybrid = { ...TINY.nemotronH, layers_block_type: twice };

/** Every family with all of its biases; whatever kind of layer a depth cut drops, one of it stays. */
const NETWORKS: Readonly<Record<string, Config>> = {
  ...TINY,
  gemma3: { ...TINY.gemma3, sliding_window_pattern: 2 },
  nemotron: { ...TINY.nemotron, attention_bias: true, mlp_bias: true },
  qwen3: { ...TINY.qwen3, attention_bias: true },
  qwen3Moe: { ...TINY.qwen3Moe, attention_bias: true, mlp_only_layers: [2] },
  nemotronH: hybrid,
  nemotronHLatent: { ...hybrid, moe_latent_size: 12, mlp_bias: true },
  nemotronHBias: { ...hybrid, use_bias: true, n_routed_experts: 8, n_group: 2, topk_group: 1 },
};

const TARGETS: Readonly<Record<PrunableName, (n: number) => number>> = {
  num_layers: (n) => n - 1,
  hidden_size: (n) => n - 4,
  ffn_hidden_size: (n) => n - 5,
  num_attention_heads: (n) => n / 2,
  num_query_groups: (n) => n / 2,
  num_moe_experts: (n) => n - (n % 2 === 0 ? 2 : 1),
  moe_ffn_hidden_size: (n) => n - 3,
  moe_shared_expert_intermediate_size: (n) => n - 7,
  mamba_num_heads: (n) => n / 2,
  mamba_head_dim: (n) => n - 3,
};

type Cut = readonly [name: string, exportConfig: Readonly<Record<string, number>>];

/** A cut of each axis alone, and one of all at once. Groups take half of the heads with them. */
function cutsOf(config: Config): Cut[] {
  const { hyperparameters } = readArchitecture(config);
  const each = prunableNames(hyperparameters).map((name): Cut => [name, { [name]: TARGETS[name](hyperparameters[name] ?? 0) }]);
  const all = Object.assign({}, ...each.map(([, one]) => one), { num_attention_heads: 1 });
  return [...each, ["every axis", all]];
}

/** Every cut in the layout that hubs have, and the cut of every axis in the other too. */
const CASES = Object.entries(NETWORKS).flatMap(([family, config]) => {
  const layouts = readArchitecture(config).table.layouts.map(({ name }) => name);
  return cutsOf(config).flatMap(([cut, exportConfig]) =>
    layouts.slice(0, cut === "every axis" ? layouts.length : 1).map((layout) => ({ family, layout, cut, config, exportConfig })),
  );
});

const PROBE = [0, 1].map((row) => Array.from({ length: 12 }, (_, position) => (5 * row + 7 * position) % 40));
let bridge: Bridge;
let reference: Reference;

beforeAll(async () => {
  bridge = await Bridge.spawn({ env: { OMP_NUM_THREADS: "1" } });
  reference = startReference();
});
afterAll(async () => {
  await reference?.stop();
  await bridge?.close();
});

interface Cutting {
  readonly parent: Parent;
  readonly child: string;
  readonly plan: PlanFile;
}

async function cut(config: Config, layout: LayoutName, exportConfig: unknown): Promise<Cutting> {
  const dir = await temporaryFolder();
  const parent = await readParent(await writeCheckpoint(join(dir, "parent"), config, { layout, files: 2, most: 0.5 }));
  const random = mulberry32(7);
  const tensors = plantedScores(config, () => random());
  const accumulators: ScoreFile["accumulators"] = new Map(
    tensors.map((tensor) => [tensor.name, { shape: tensor.shape, data: asFloat32(tensor) }]),
  );
  const made = plan(parent, exportConfig, { scores: { accumulators, fingerprint: undefined, provenance: {} }, path: "planted" });
  const child = join(dir, "child");
  await slice(bridge, parent, made, child);
  await verify(child);
  return { parent, child, plan: made };
}

/** The largest difference of two tensors, as a share of the largest value of the second. */
function relativeDifference(found: Tensor, expected: Tensor): number {
  expect(found.shape).toEqual(expected.shape);
  const [a, b] = [asFloat32(found), asFloat32(expected)];
  const largest = (value: (i: number) => number): number => a.reduce((most, _, i) => Math.max(most, Math.abs(value(i))), 0);
  return largest((i) => (a[i] ?? 0) - (b[i] ?? 0)) / largest((i) => b[i] ?? 0);
}

describe.each(CASES)("$family, $layout: a cut of $cut", ({ family, config, layout, exportConfig }) => {
  // Nemotron's norms subtract the mean of all hidden channels, which zeros among them move.
  const masked = !(family === "nemotron" && "hidden_size" in exportConfig);

  it("is the parent indexed, computes what the parent does without what goes, and is the same live", async () => {
    const { parent, child, plan: made } = await cut(config, layout, exportConfig);
    expect(parent.matched?.layout).toBe(layout);
    expect(await reference.check({ parent: parent.checkpoint.dir, child, kept: spelledOut(parent, made), masked })).toBe("ok");

    await using stored = await bridge.open(child);
    const expected = await stored.forward(PROBE);
    await using model = await bridge.open(parent);
    {
      await using view = await model.view(made);
      expect(relativeDifference(await view.forward(PROBE), expected)).toBeLessThan(1e-5);
    }
    model.prune(made);
    expect(relativeDifference(await model.forward(PROBE), expected)).toBeLessThan(1e-5);
  });
});
