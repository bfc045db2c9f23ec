import { PruneError } from "../../errors.js";
import { suggestName } from "../nearest.js";
import type { NetworkCosts } from "../network/costs.js";
import { type Bound, parseBounds } from "../search/bounds.js";
import { shown } from "../shown.js";

/** An upper bound on one metric of a network. */
export interface NetworkConstraint {
  readonly metric: keyof NetworkCosts;
  readonly bound: Bound;
}

const METRICS: readonly string[] = ["flops", "params"] satisfies NetworkConstraint["metric"][];

/**
 * Reads the `constraints` argument of prune() for modes that take one upper bound.
 *
 * @throws PruneError BAD_CONSTRAINTS on none, on two at once, on an unknown name, or on a value that is no bound
 */
export function parseNetworkConstraint(mode: string, given: unknown): NetworkConstraint {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw bad(`constraints must be an object such as {"flops": "50%"}, not ${shown(given)}`);
  }
  const names = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  const unknown = names.find((name) => !METRICS.includes(name));
  if (unknown !== undefined) throw bad(`${mode} knows no constraint ${unknown}: it takes flops or params`, suggestName(unknown, METRICS));
  if (names.length !== 1) {
    const found = names.length === 0 ? "none is given" : `${names.join(" and ")} are given`;
    throw bad(`${mode} takes exactly one constraint, and ${found}`, 'give {"flops": "50%"} or {"params": 1e6}, for one');
  }
  const [entry] = Object.entries(parseBounds({ ...given })) as [NetworkConstraint["metric"], Bound][]; // of known names
  if (!entry) throw new PruneError("INTERNAL", "a bound was given, and is not there");
  return { metric: entry[0], bound: entry[1] };
}

function bad(detail: string, hint?: string): PruneError {
  return new PruneError("BAD_CONSTRAINTS", detail, hint === undefined ? {} : { hint });
}
