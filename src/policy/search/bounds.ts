import { PruneError } from "../../errors.js";
import { shown } from "../shown.js";
import { type Costs, METRICS, type Metric } from "./metrics.js";

/** An upper bound on a metric: a number, or a share of the parent's. */
export type Bound = { readonly kind: "absolute"; readonly most: number } | { readonly kind: "share"; readonly share: number };

/** A bound for each metric that is constrained; at least one. */
export type Bounds = Readonly<Partial<Record<Metric, Bound>>>;

const PERCENT = /^(\d+(?:\.\d+)?)\s*%$/;

/**
 * Reads bounds such as `{ params: 6e9, memory_mb: "60%" }`.
 *
 * @throws PruneError BAD_CONSTRAINTS that names the metric
 */
export function parseBounds(given: Readonly<Record<string, unknown>>): Bounds {
  return Object.fromEntries(
    METRICS.filter((metric) => given[metric] !== undefined).map((metric) => [metric, parseBound(metric, given[metric])]),
  );
}

function parseBound(metric: Metric, value: unknown): Bound {
  if (typeof value === "number" && value > 0 && Number.isFinite(value)) return { kind: "absolute", most: value };
  const percent = typeof value === "string" ? PERCENT.exec(value.trim()) : null;
  const share = Number(percent?.[1] ?? Number.NaN) / 100;
  if (share > 0 && share <= 1) return { kind: "share", share };
  throw new PruneError("BAD_CONSTRAINTS", `${metric} ${shown(value)} is no upper bound`, {
    hint: `give a positive number, or a percentage of the parent's up to "100%"`,
  });
}

/** The bounds as numbers, given what the parent costs. */
export function resolveBounds(bounds: Bounds, parent: Costs): Readonly<Partial<Record<Metric, number>>> {
  const entries = Object.entries(bounds) as [Metric, Bound][];
  return Object.fromEntries(
    entries.map(([metric, bound]) => [metric, bound.kind === "absolute" ? bound.most : bound.share * parent[metric]]),
  );
}
