import fc from "fast-check";
import { expect, it } from "vitest";
import { readArchitecture } from "../../src/policy/architecture.js";
import { matchTensors } from "../../src/policy/matchTensors.js";
import { makePlan } from "../../src/policy/plan.js";
import { rankByActivation } from "../../src/policy/rank.js";
import type { Accumulators } from "../../src/policy/scores.js";
import { expectedTensors, nameAt, type StoredTensor } from "../../src/policy/tensors.js";
import { asFloat32 } from "../../src/tensor.js";
import { plantedScores } from "../fixtures/checkpoints.js";
import { everyAxis } from "../fixtures/cutting.js";
import { NETWORKS } from "../fixtures/families.js";
import { FACTOR, outcomeOf, Tally, TIMEOUT_MS } from "./outcome.js";

const networks = Object.values(NETWORKS).map((config) => {
  const architecture = readArchitecture(config);
  const { layouts } = architecture.table;
  const stored = layouts.map(({ name }) => expectedTensors(architecture, name).map((tensor) => tensor.stored));
  const scores = plantedScores(config, (_, position) => position).map((tensor) => [tensor.name, tensor.shape, asFloat32(tensor)] as const);
  return { config, architecture, stored, scores };
});

const RENAMES: readonly ((name: string) => string)[] = [
  (name) => name.replace(/\.\d+\./, ".{layer}."),
  (name) => name.replace(/experts\.\d+\./, "experts.{expert}."),
  (name) => name.replace(/\.(\d+)\./, ".0$1."),
  (name) => name.replace(/\.(\d+)\./, ".9$1."),
  (name) => name.replace(/\.\d+\./, ".99999999999999999999."),
  (name) => name.replace("embeddings", "embedding"),
  (name) => `${name}.lora_A`,
  () => "__proto__",
  () => "mtp.x",
];

interface Change {
  readonly kind: "rename" | "copy" | "drop" | "reshape";
  readonly at: number;
  readonly rename: (name: string) => string;
  readonly size: number;
}

const changes = fc.array(
  fc.record({
    kind: fc.constantFrom<Change["kind"]>("rename", "copy", "drop", "reshape"),
    at: fc.nat(1000),
    rename: fc.constantFrom(...RENAMES),
    size: fc.constantFrom(0, 1, 2, 32, 2 ** 53 - 1),
  }),
  { maxLength: 2 },
);

it(
  "tensors are matched one for one with what a network has, or refused",
  () => {
    const tally = new Tally();
    const stored = fc.constantFrom(...networks).chain((network) => fc.tuple(fc.constant(network), fc.constantFrom(...network.stored)));
    fc.assert(
      fc.property(stored, changes, ([{ architecture }, tensors], edits) => {
        const changed = edits.reduce(change, tensors);
        const { value } = tally.count(outcomeOf(() => matchTensors(architecture, changed)));
        if (!value) return true;
        const found = value.tensors.map(({ row, ...place }) => nameAt(row.name, place));
        const expected = expectedTensors(architecture, value.layout).map((tensor) => tensor.stored.name);
        const shared = architecture.flags.tied ? ["lm_head.weight"] : [];
        return (
          new Set(found).size === found.length &&
          expected.every((name) => found.includes(name)) &&
          found.length <= expected.length + shared.length
        );
      }),
      { numRuns: 6000 * FACTOR },
    );
    expect(tally.share).toBeGreaterThan(0.1);
  },
  TIMEOUT_MS,
);

it.each([
  ["nemotronH", "backbone.embeddings.weight", "backbone.embedding.weight"],
  ["llama", "model.layers.0.input_layernorm.weight", "model.layers.{layer}.input_layernorm.weight"],
  ["mixtral", "model.layers.0.block_sparse_moe.experts.0.w1.weight", "model.layers.0.block_sparse_moe.experts.{expert}.w1.weight"],
])("%s has no second %s under the name %s", (family, name, second) => {
  const architecture = readArchitecture(NETWORKS[family] ?? {});
  const stored = expectedTensors(architecture, "huggingface").map((tensor) => tensor.stored);
  const first = stored.find((tensor) => tensor.name === name);
  expect(first).toBeDefined();
  expect(() => matchTensors(architecture, stored)).not.toThrow();
  expect(() => matchTensors(architecture, [...stored, { shape: [], ...first, name: second }])).toThrow(/UNKNOWN_TENSOR/);
});

it(
  "scores rank, or are refused",
  () => {
    const values = fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -1, -0, 0, 1e-45, 3e38);
    const damage = fc.record({
      at: fc.nat(1000),
      position: fc.nat(100),
      value: values,
      how: fc.constantFrom("value", "drop", "cut", "rename"),
    });
    const tally = new Tally();
    fc.assert(
      fc.property(fc.constantFrom(...networks), fc.array(damage, { maxLength: 1 }), ({ config, architecture, scores }, damages) => {
        const accumulators = new Map(scores.map(([name, shape, data]) => [name, { shape, data: data.slice() }]));
        for (const { at, position, value, how } of damages) {
          const [name = ""] = scores[at % scores.length] ?? [];
          const { shape = [], data = new Float32Array() } = accumulators.get(name) ?? {};
          if (how === "value") data[position % data.length] = value;
          else accumulators.delete(name);
          if (how === "cut") accumulators.set(name, { shape, data: data.slice(1) });
          if (how === "rename") accumulators.set("constructor", { shape, data });
        }
        const { value } = tally.count(outcomeOf(() => planBy(config, architecture, accumulators)));
        return value === undefined || Object.keys(value.kept).length > 0;
      }),
      { numRuns: 1500 * FACTOR },
    );
    expect(tally.share).toBeGreaterThan(0.1);
  },
  TIMEOUT_MS,
);

function planBy(
  config: Record<string, unknown>,
  architecture: ReturnType<typeof readArchitecture>,
  scores: Accumulators,
): ReturnType<typeof makePlan> {
  return makePlan(architecture, config, everyAxis(config), rankByActivation(architecture, scores));
}

function change(tensors: readonly StoredTensor[], { kind, at, rename, size }: Change): readonly StoredTensor[] {
  const place = at % Math.max(1, tensors.length);
  const picked = tensors[place];
  if (!picked) return tensors;
  const renamed = { ...picked, name: rename(picked.name) };
  if (kind === "copy") return tensors.some(({ name }) => name === renamed.name) ? tensors : [...tensors, renamed];
  if (kind === "drop") return tensors.filter((tensor) => tensor !== picked);
  return tensors.with(place, kind === "rename" ? renamed : { ...picked, shape: [...picked.shape.slice(1), size] });
}
