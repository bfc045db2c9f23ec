import Table from "cli-table3";
import type { Inspection, Manifest, PlanOutline, SearchResult } from "../index.js";

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

/** A checkpoint for a person to read. */
export function formatInspection(found: Inspection): string {
  const rows: (readonly [string, string | number])[] = [
    ["family", found.layout === undefined ? found.family : `${found.family} (${found.layout})`],
    ...(Object.entries(found.hyperparameters) as [string, number][]),
    ["params", found.params],
    ["active_params", found.activeParams],
    ["tied_embeddings", found.tiedEmbeddings ? "yes" : "no"],
  ];
  if (found.weights) {
    const { files, tensors, bytes, dtypes } = found.weights;
    rows.push([
      "weights",
      `${tensors} tensors in ${files} file${files === 1 ? "" : "s"}, ${(bytes / 1e9).toFixed(2)} GB, ${dtypes.join(" and ")}`,
    ]);
  }
  return formatTable(rows);
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

/** What was written where. */
export function formatManifest(out: string, manifest: Manifest): string {
  const bytes = manifest.shards.reduce((sum, shard) => sum + shard.bytes, 0);
  return `wrote ${out}: ${manifest.params.child.toLocaleString("en-US")} of ${manifest.params.parent.toLocaleString("en-US")} parameters, ${(bytes / 1e9).toFixed(2)} GB in ${manifest.shards.length} file${manifest.shards.length === 1 ? "" : "s"}`;
}

/** A search's space and its best candidates. */
export function formatSearch({ parent, space, spaceSize, primary, feasible, candidates }: SearchResult): string {
  const names = Object.keys(space) as (keyof typeof space)[];
  const choices = names.map((name) => `${name} ${space[name]?.join(" ")}`).join("\n");
  const row = (label: string, sizes: readonly number[], costs: SearchResult["parent"]): (string | number)[] => [
    label,
    ...sizes,
    costs.params,
    ((100 * costs.params) / parent.params).toFixed(1),
    Math.round(costs.memory_mb),
    costs.flops.toExponential(3),
  ];
  const table = formatTable([
    ["", ...names, "params", "%", "memory_mb", "flops"],
    row(
      "parent",
      names.map((name) => space[name]?.at(-1) ?? 0),
      parent,
    ),
    ...candidates.map(({ exportConfig, costs }, i) =>
      row(
        `${i + 1}`,
        names.map((name) => exportConfig[name] ?? 0),
        costs,
      ),
    ),
  ]);
  const counts = `${spaceSize.toLocaleString("en-US")} subnets, ${feasible.toLocaleString("en-US")} within the bounds; the largest by ${primary}:`;
  return `${choices}\n${counts}\n\n${table}`;
}
