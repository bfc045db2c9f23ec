import { type Architecture, exists, sizesAt } from "./architecture.js";
import { axisSize } from "./axes/evaluate.js";
import { type Axis, parseAxis, type StoredAxis } from "./axes/expression.js";
import type { LayerKind, Layout, LayoutName, TensorRow } from "./families/table.js";

/** What policy needs to know of a tensor on disk. */
export interface StoredTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** As safetensors spells it; what is only expected has none. */
  readonly dtype?: string;
}

/** A row of the family's table that exists in an architecture, with its axes parsed. */
export interface ArchitectureRow {
  readonly name: string;
  readonly aliases: readonly string[];
  /** The rows of the Hugging Face layout that it holds. */
  readonly of: readonly string[];
  readonly axes: readonly Axis[];
  readonly axisTexts: readonly string[];
  readonly perLayer: boolean;
  readonly perExpert: boolean;
  readonly on: readonly LayerKind[] | undefined;
  /** The checkpoint may lack it, and it is not counted: its storage is another tensor's. */
  readonly shared: boolean;
  /** The forward pass multiplies by it. */
  readonly multiplies: boolean;
  readonly buffer: boolean;
  readonly routed: boolean;
  /** Of each sequence, only one token passes it. */
  readonly oncePerSequence: boolean;
  /** What its elements have on top of the same ones in the Hugging Face layout. */
  readonly offset: number;
}

/** What a stored tensor is an instance of: a row, or a part of a row's quantised weight. */
export type StoredRow = Omit<ArchitectureRow, "axes"> & { readonly axes: readonly StoredAxis[] };

/** Which layer and expert a tensor belongs to; undefined for what stands outside of them. */
export interface Place {
  readonly layer: number | undefined;
  readonly expert: number | undefined;
}

/** A stored tensor with the row that it is an instance of. */
export interface MatchedTensor<T extends StoredTensor = StoredTensor> extends Place {
  readonly stored: T;
  readonly row: StoredRow;
  /** The name that the checkpoint has for tensors of the row, a prefix included, with `{layer}` and `{expert}`. */
  readonly spelling: string;
}

/** Where the names of rows have a layer's and an expert's number. */
export const LAYER = "{layer}";
export const EXPERT = "{expert}";

/** The rows that exist under an architecture's switches and layers, in one layout; by default that of transformers' own modules. */
export function architectureRows({ table, flags, layers }: Architecture, layout: LayoutName = table.live): ArchitectureRow[] {
  return layoutOf(table.layouts, layout)
    .tensors.filter((row) => exists(row, flags) && (row.on?.some((kind) => layers.includes(kind)) ?? true))
    .map((row: TensorRow) => ({
      name: row.name,
      aliases: row.aliases ?? [],
      of: row.of ?? [row.name],
      axes: row.axes.map(parseAxis),
      axisTexts: row.axes,
      perLayer: row.name.includes(LAYER),
      perExpert: row.name.includes(EXPERT),
      on: row.on,
      shared: row.tiedTo !== undefined && flags.tied,
      multiplies: row.use === undefined && row.axes.length > 1,
      buffer: row.use === "buffer",
      routed: row.routed ?? false,
      oncePerSequence: row.oncePerSequence ?? false,
      offset: layout === "megatron" && row.centre !== undefined ? Number(!flags.zero_centered_norms) - row.centre : 0,
    }));
}

function layoutOf(layouts: readonly Layout[], name: LayoutName): Layout {
  const found = layouts.find((layout) => layout.name === name);
  if (found) return found;
  throw new RangeError(`the family has no layout ${name}`);
}

/** The shape that a row's tensor has in a layer, or outside of all. */
export function rowShape(row: Pick<StoredRow, "axes">, architecture: Architecture, layer?: number): number[] {
  const sizes = sizesAt(architecture, layer);
  return row.axes.map((axis) => axisSize(axis, sizes));
}

/** Every place that has a tensor of a row. */
export function* rowPlaces(row: StoredRow, { layers, hyperparameters }: Architecture): Generator<Place, void, void> {
  if (!row.perLayer) {
    yield { layer: undefined, expert: undefined };
    return;
  }
  for (const [layer, kind] of layers.entries()) {
    if (!(row.on?.includes(kind) ?? true)) continue;
    if (!row.perExpert) yield { layer, expert: undefined };
    else for (let expert = 0; expert < (hyperparameters.num_moe_experts ?? 0); expert++) yield { layer, expert };
  }
}

/** How many places have a tensor of a row. */
export function countPlaces(row: StoredRow, { layers, hyperparameters }: Architecture): number {
  if (!row.perLayer) return 1;
  const having = layers.filter((kind) => row.on?.includes(kind) ?? true).length;
  return row.perExpert ? having * (hyperparameters.num_moe_experts ?? 0) : having;
}

/** A row's name with its layer and expert filled in. */
export function nameAt(name: string, { layer, expert }: Partial<Place>): string {
  return name.replace(LAYER, String(layer)).replace(EXPERT, String(expert));
}

/** Every tensor that an architecture has in a layout, with its row. */
export function expectedTensors(architecture: Architecture, layout: LayoutName = architecture.table.live): MatchedTensor[] {
  return architectureRows(architecture, layout)
    .filter((row) => !row.shared)
    .flatMap((row) =>
      [...rowPlaces(row, architecture)].map((place) => ({
        ...place,
        row,
        spelling: row.name,
        stored: { name: nameAt(row.name, place), shape: rowShape(row, architecture, place.layer) },
      })),
    );
}
