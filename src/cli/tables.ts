import { formatTable, type Inspection, type Manifest } from "../index.js";

/** A checkpoint for a person to read. */
export function formatInspection(found: Inspection): string {
  const rows: (readonly [string, string | number])[] = [
    ["family", found.layout === undefined ? found.family : `${found.family} (${found.layout})`],
    ...(Object.entries(found.hyperparameters) as [string, number][]).map(
      ([name, size]) => [name, rangeOver(found.layers ?? [], name) ?? size] as const,
    ),
    ["params", found.params],
    ["active_params", found.activeParams],
    ["tied_embeddings", found.tiedEmbeddings ? "yes" : "no"],
  ];
  if (found.quantization !== undefined) rows.push(["quantised", found.quantization]);
  if (found.weights) {
    const { files, tensors, bytes, dtypes, leftOut } = found.weights;
    rows.push([
      "weights",
      `${tensors} tensors in ${files} file${files === 1 ? "" : "s"}, ${(bytes / 1e9).toFixed(2)} GB, ${dtypes.join(" and ")}`,
    ]);
    if (leftOut > 0) rows.push(["left out", `${leftOut} tensors of the optimizer`]);
  }
  return formatTable(rows);
}

/** The least and the most that layers have of something of which each has its own; undefined where all have the same. */
function rangeOver(layers: readonly object[], name: string): string | undefined {
  const sizes = layers.flatMap((layer) => (name in layer ? Number((layer as Record<string, number>)[name]) : []));
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  return least < most ? `${least.toLocaleString("en-US")} to ${most.toLocaleString("en-US")}, by layer` : undefined;
}

/** What was written where. */
export function formatManifest(out: string, manifest: Manifest): string {
  const bytes = manifest.shards.reduce((sum, shard) => sum + shard.bytes, 0);
  return `wrote ${out}: ${manifest.params.child.toLocaleString("en-US")} of ${manifest.params.parent.toLocaleString("en-US")} parameters, ${(bytes / 1e9).toFixed(2)} GB in ${manifest.shards.length} file${manifest.shards.length === 1 ? "" : "s"}`;
}

/** What needed not be cut again; nothing where all was. */
export function formatFound(bytes: number): string {
  return bytes === 0 ? "" : `, of which ${(bytes / 1e9).toFixed(2)} GB were found written`;
}
