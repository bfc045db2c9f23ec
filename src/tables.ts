import Table from "cli-table3";
import type { PlanOutline } from "./policy/plan.js";
import type { Costs } from "./policy/search/metrics.js";
import type { SearchOutline, SearchResult } from "./policy/search/search.js";

const PLAIN = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: "  ",
};

/** Lines up rows in columns; numbers to the right. */
export function formatTable(rows: readonly (readonly (string | number)[])[]): string {
  const columns = rows[0]?.length ?? 0;
  const colAligns = Array.from({ length: columns }, (_, column) => (column > 0 ? "right" : "left") as "left" | "right");
  const table = new Table({ chars: PLAIN, colAligns, style: { "padding-left": 0, "padding-right": 0, head: [], border: [] } });
  table.push(...rows.map((row) => row.map((cell) => (typeof cell === "number" ? cell.toLocaleString("en-US") : cell))));
  return table.toString();
}

/** Parent and child side by side; what changes is marked. */
export function formatOutline({ parent, child, warnings }: Pick<PlanOutline, "parent" | "child" | "warnings">): string {
  const names = Object.keys(parent.hyperparameters) as (keyof typeof parent.hyperparameters)[];
  const share = `${((100 * child.params) / parent.params).toFixed(1)}%`;
  const table = formatTable([
    ["", "parent", "child"],
    ...names.map((name) => [name, parent.hyperparameters[name] ?? "", child.hyperparameters[name] ?? ""]),
    ["params", parent.params, child.params],
    ["", "", share],
  ]);
  return [table, ...warnings.map((warning) => `warning: ${warning}`)].join("\n");
}

/** The sizes that a search chooses among, and what is asked of them. */
export function formatSpace({ parent, space, spaceSize, limits, feasible, warnings }: SearchOutline): string {
  const choices = Object.entries(space).map(([name, sizes]) => [name, sizes.join(" ")]);
  const bounds = (Object.keys(parent) as (keyof Costs)[]).map((metric) => [
    metric,
    formatCost(metric, parent[metric]),
    limits[metric] === undefined ? "" : formatCost(metric, limits[metric]),
  ]);
  return [
    formatTable([["hyperparameter", "choices"], ...choices]),
    formatTable([["metric", "parent", "at most"], ...bounds]),
    `${spaceSize.toLocaleString("en-US")} subnets${describeFeasible(feasible)}`,
    ...warnings.map((warning) => `warning: ${warning}`),
  ].join("\n\n");
}

interface ScoredSizes {
  readonly exportConfig: Readonly<Partial<Record<string, number>>>;
  readonly costs: Costs;
  readonly score?: number | undefined;
}

function describeFeasible(feasible: number | undefined): string {
  if (feasible !== undefined) return `, ${feasible.toLocaleString("en-US")} of them within the bounds`;
  return "; how many of them are within the bounds depends on the layers that scores keep";
}

/** The best candidates, the largest first, with their scores where they have any. */
export function formatCandidates({ parent, space, primary }: SearchResult, candidates: readonly ScoredSizes[]): string {
  const names = Object.entries(space).flatMap(([name, sizes]) => (sizes.length > 1 ? [name] : []));
  const metrics = Object.keys(parent) as (keyof Costs)[];
  const scored = candidates.some(({ score }) => score !== undefined);
  const row = (label: string, sizes: Readonly<Partial<Record<string, number>>>, costs: Costs): string[] => [
    label,
    ...names.map((name) => String(sizes[name] ?? "")),
    ...metrics.map((metric) => formatCost(metric, costs[metric])),
    `${((100 * costs[primary]) / parent[primary]).toFixed(1)}%`,
  ];
  const parentSizes = Object.fromEntries(Object.entries(space).map(([name, sizes]) => [name, sizes.at(-1) ?? 0]));
  return formatTable([
    ["", ...names, ...metrics, `share of ${primary}`, ...(scored ? ["score"] : [])],
    [...row("parent", parentSizes, parent), ...(scored ? [""] : [])],
    ...candidates.map(({ exportConfig, costs, score }, i) => [
      ...row(`${i + 1}`, exportConfig, costs),
      ...(scored ? [score?.toPrecision(6) ?? ""] : []),
    ]),
  ]);
}

/** One candidate as soon as its score is known. */
export function formatScored({ exportConfig, score }: Pick<ScoredSizes, "exportConfig" | "score">, index: number, of: number): string {
  const sizes = Object.entries(exportConfig).map(([name, size]) => `${name} ${size}`);
  return `candidate ${index + 1} of ${of}: score ${score?.toPrecision(6)} (${sizes.join(", ")})`;
}

function formatCost(metric: keyof Costs, value: number): string {
  return metric === "flops"
    ? value.toExponential(3)
    : value.toLocaleString("en-US", { maximumFractionDigits: metric === "memory_mb" ? 1 : 0 });
}
