import { PruneError } from "../errors.js";
import { suggestName } from "./nearest.js";
import { type Bounds, parseBounds } from "./search/bounds.js";
import { METRICS } from "./search/metrics.js";
import { shown } from "./shown.js";

/** What a pruned model has to satisfy: exact sizes, or upper bounds on what it costs. */
export type Constraints =
  | { readonly kind: "export_config"; readonly exportConfig: unknown }
  | { readonly kind: "bounds"; readonly bounds: Bounds };

const NAMES = ["export_config", ...METRICS];

/**
 * Reads the `constraints` argument of prune().
 *
 * @throws PruneError BAD_CONSTRAINTS on an unknown name, on sizes and bounds together, or on a value that is no bound
 */
export function parseConstraints(given: unknown): Constraints {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw bad(`constraints must be an object such as {"params": "60%"}, not ${shown(given)}`);
  }
  const names = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  const unknown = names.find((name) => !NAMES.includes(name));
  if (unknown !== undefined) throw bad(`unknown constraint ${unknown}`, suggestName(unknown, NAMES));
  if (!("export_config" in given) || given.export_config === undefined) {
    if (names.length === 0) throw bad("constraints are empty", 'give {"export_config": {...}}, or a bound such as {"params": "60%"}');
    return { kind: "bounds", bounds: parseBounds({ ...given }) };
  }
  const other = names.find((name) => name !== "export_config");
  if (other !== undefined) throw bad(`export_config stands alone; it cannot be combined with ${other}`);
  return { kind: "export_config", exportConfig: given.export_config };
}

function bad(detail: string, hint?: string): PruneError {
  return new PruneError("BAD_CONSTRAINTS", detail, hint === undefined ? {} : { hint });
}
