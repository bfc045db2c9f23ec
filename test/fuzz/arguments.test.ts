import { InvalidArgumentError } from "commander";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseCount, parseMemory } from "../../src/cli/humanNumbers.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import { parseConstraints } from "../../src/policy/constraints.js";
import { resolveExportConfig } from "../../src/policy/exportConfig.js";
import { PRUNABLE_NAMES } from "../../src/policy/hyperparameters.js";
import { parseModes } from "../../src/policy/modes/modes.js";
import { METRICS } from "../../src/policy/search/metrics.js";
import { NETWORKS } from "../fixtures/families.js";
import { FACTOR, outcomeOf, Tally, TIMEOUT_MS } from "./outcome.js";

const anything = fc.anything({ withBigInt: true, withDate: true, withNullPrototype: true, withSparseArray: true, withTypedArray: true });
const parents = Object.values(NETWORKS).map((config) => readArchitecture(config).hyperparameters);

/** Records with names that are known, mostly, and values that fit, often. */
function records(names: readonly string[], fitting: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const name = fc.oneof({ weight: 12, arbitrary: fc.constantFrom(...names) }, { weight: 1, arbitrary: fc.string() });
  const value = fc.oneof({ weight: 8, arbitrary: fitting }, { weight: 1, arbitrary: anything });
  return fc.oneof({ weight: 6, arbitrary: fc.dictionary(name, value, { maxKeys: 3 }) }, { weight: 1, arbitrary: anything });
}

describe("arguments", () => {
  it(
    "that give sizes make a child no larger than its parent, or are refused",
    () => {
      const tally = new Tally();
      fc.assert(
        fc.property(fc.constantFrom(...parents), records(PRUNABLE_NAMES, fc.integer({ min: 0, max: 20 })), (parent, given) => {
          const { value } = tally.count(outcomeOf(() => resolveExportConfig(given, parent)));
          if (!value) return true;
          const { hyperparameters: child } = value;
          const within = (name: keyof typeof parent): boolean => (child[name] ?? 0) >= 1 && (child[name] ?? 0) <= (parent[name] ?? 0);
          return (Object.keys(parent) as (keyof typeof parent)[]).every(within) && child.num_attention_heads % child.num_query_groups === 0;
        }),
        { numRuns: 8000 * FACTOR },
      );
      expect(tally.share).toBeGreaterThan(0.05);
    },
    TIMEOUT_MS,
  );

  it(
    "that give bounds are finite and positive, or refused",
    () => {
      const bounds = fc.oneof(
        fc.double(),
        fc.integer({ min: -1, max: 101 }).map((share) => `${share}%`),
      );
      const tally = new Tally();
      fc.assert(
        fc.property(records([...METRICS, "export_config"], bounds), (given) => {
          const { value } = tally.count(outcomeOf(() => parseConstraints(given)));
          if (value?.kind !== "bounds") return true;
          const numbers = Object.values(value.bounds).map((bound) => (bound.kind === "absolute" ? bound.most : bound.share));
          return numbers.length > 0 && numbers.every((number) => number > 0 && number < Number.POSITIVE_INFINITY);
        }),
        { numRuns: 8000 * FACTOR },
      );
      expect(tally.share).toBeGreaterThan(0.05);
    },
    TIMEOUT_MS,
  );

  it(
    "that name modes are those of the mode there is, or refused",
    () => {
      const options = records(["skip_sorting", "hidden_size_divisor", "num_layers_divisor"], fc.oneof(fc.boolean(), fc.integer()));
      const name = fc.constantFrom("mcore_gpt_minitron", "mcore_minitron", "fastnas", "toString");
      const given = fc.oneof(name, fc.array(fc.tuple(name, options), { maxLength: 2 }), records(["mcore_gpt_minitron"], options), anything);
      const tally = new Tally();
      fc.assert(
        fc.property(given, (modes) => {
          tally.count(outcomeOf(() => parseModes(modes)));
        }),
        { numRuns: 5000 * FACTOR },
      );
      expect(tally.share).toBeGreaterThan(0.05);
    },
    TIMEOUT_MS,
  );

  it(
    "that are numbers as people write them are numbers, percentages, or refused",
    () => {
      const text = fc.oneof(
        fc.string({ maxLength: 8 }),
        fc
          .tuple(fc.float({ noNaN: true }), fc.constantFrom("", "K", "B", " b", "%", "GiB", " MB", "e9", "x"))
          .map(([n, unit]) => `${n}${unit}`),
      );
      fc.assert(
        fc.property(text, fc.constantFrom(parseCount, parseMemory), (given, parse) => {
          try {
            const value = parse(given);
            return typeof value === "string" ? value.trim().endsWith("%") : value >= 0;
          } catch (error) {
            return error instanceof InvalidArgumentError;
          }
        }),
        { numRuns: 5000 * FACTOR },
      );
    },
    TIMEOUT_MS,
  );
});
