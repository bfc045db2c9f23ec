import fc from "fast-check";
import { expect, it } from "vitest";
import { encodePlan, type PlanFile, parsePlan } from "../../src/checkpoint/planFile.js";
import { type Architecture, readArchitecture } from "../../src/policy/architecture.js";
import { checkPlan } from "../../src/policy/checkPlan.js";
import { makePlan } from "../../src/policy/plan.js";
import { rankByPosition } from "../../src/policy/rank.js";
import { type Slices, sliceTensors } from "../../src/policy/slices.js";
import { expectedTensors, type MatchedTensor } from "../../src/policy/tensors.js";
import type { Config } from "../fixtures/checkpoints.js";
import { eachAxis, everyAxis } from "../fixtures/cutting.js";
import { NETWORKS } from "../fixtures/families.js";
import { nearText } from "./documents.js";
import { FACTOR, outcomeOf, Tally, TIMEOUT_MS } from "./outcome.js";

const OWN = [
  ...['"0-3"', '"0,2"', '"1-3"', '"0-15"', '"4-19"', '"0-43"', '"0-999999999"', '"0-"', '","', '"16777215"', '"16777216"'],
  ...['"ffn"', '"hidden"', '"layer"', '"0"', '"1"', '{"0":"0-1"}', '{"0":{"0":"0"},"1":{"0":"0"}}', '"sha256:0"'],
];

interface Network {
  readonly config: Config;
  readonly architecture: Architecture;
  readonly tensors: readonly MatchedTensor[];
}

const networks = Object.values(NETWORKS).map((config): Network => {
  const architecture = readArchitecture(config);
  return { config, architecture, tensors: expectedTensors(architecture) };
});
const plans = networks.flatMap((network) =>
  [everyAxis(network.config), ...eachAxis(network.config)].map((target) => ({
    network,
    plan: JSON.parse(planText(network, target)) as Record<string, unknown>,
  })),
);

it(
  "a plan is written again as the same, and cuts within its parent or is refused",
  () => {
    const tally = new Tally();
    fc.assert(
      fc.property(
        fc.constantFrom(...plans).chain(({ network, plan }) => fc.tuple(fc.constant(network), nearText(moved(plan), OWN, 2))),
        ([network, text]) => {
          const { value: plan } = outcomeOf(() => parsePlan(text, "plan.json"));
          if (!plan) return true;
          const written = encodePlan(plan);
          if (encodePlan(parsePlan(written, "again")) !== written) return false;
          const { value: slices } = tally.count(outcomeOf(() => slicesOf(network, plan)));
          return !slices || slices.tensors.every((tensor) => fits(tensor, slices.indexSets));
        },
      ),
      { numRuns: 10_000 * FACTOR },
    );
    expect(tally.share).toBeGreaterThan(0.1);
  },
  TIMEOUT_MS,
);

/** A plan, and as often one of whose sets of positions lies elsewhere. */
function moved(plan: Record<string, unknown>): fc.Arbitrary<unknown> {
  const sets = JSON.stringify(plan["kept"]).split(/("\d[\d,-]*"(?!:))/);
  const move = fc.record({ at: fc.nat(1000), by: fc.integer({ min: -2, max: 8 }) }).map(({ at, by }) => {
    const place = 1 + 2 * (at % Math.max(1, (sets.length - 1) / 2));
    const there = (sets[place] ?? "").replace(/\d+/g, (position) => String(Math.max(0, Number(position) + by)));
    return { ...plan, kept: JSON.parse(sets.with(place, there).join("")) as unknown };
  });
  return fc.oneof(fc.constant(plan), move);
}

function planText({ config, architecture }: Network, target: unknown): string {
  return encodePlan({ ...makePlan(architecture, config, target, rankByPosition(architecture)), fingerprint: null });
}

function slicesOf({ config, architecture, tensors }: Network, plan: PlanFile): Slices {
  checkPlan(architecture, config, plan, "plan.json");
  return sliceTensors(architecture, plan.kept, tensors);
}

function fits({ parts, shape }: Slices["tensors"][number], sets: Slices["indexSets"]): boolean {
  const [part] = parts;
  if (!part || parts.length > 1) return false;
  const { source, axes, blocks } = part;
  const whole = (ids: readonly string[], first: number): boolean =>
    ids.every((id, i) => {
      const size = source.shape[first + i] ?? 0;
      const kept = id === "" ? undefined : sets.get(id);
      if (!kept) return id === "" && shape[first + i] === size;
      const ascending = kept.every((position, at) => position > (kept[at - 1] ?? -1));
      return ascending && (kept.at(-1) ?? size) < size && kept.length === shape[first + i];
    });
  return whole(axes, 0) && blocks.every((ids) => whole(ids, 1)) && shape.every((size) => size > 0);
}
