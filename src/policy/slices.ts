import type { Architecture } from "./architecture.js";
import { keptPositions } from "./axes/evaluate.js";
import { dimensionsOf } from "./axes/expression.js";
import { DIMENSION_SCOPES } from "./hyperparameters.js";
import { type Kept, keptLookup } from "./kept.js";
import { keptLayers } from "./plan.js";
import { type ArchitectureRow, type MatchedTensor, nameInLayer, type StoredTensor } from "./tensors.js";

/** How one tensor of the child comes from one tensor of the parent. */
export interface TensorSlice<T extends StoredTensor = StoredTensor> {
  readonly name: string;
  readonly source: T;
  /** For each axis the id of an index set, or empty where the axis stays whole. */
  readonly axes: readonly string[];
  readonly shape: readonly number[];
}

/** Everything a shim needs to know to cut: index sets once, and slices that refer to them. */
export interface Slices<T extends StoredTensor = StoredTensor> {
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly tensors: readonly TensorSlice<T>[];
}

/** Turns kept sets into slices, in the order of the matched tensors. Tensors of dropped layers are left out, those behind move down. */
export function sliceTensors<T extends StoredTensor>(
  architecture: Architecture,
  kept: Kept,
  matched: readonly MatchedTensor<T>[],
): Slices<T> {
  const layers = keptLayers(kept, architecture.hyperparameters.num_layers);
  const newLayer = new Map(layers.map((layer, position) => [layer, position]));
  const lookup = keptLookup(kept);
  const indexSets = new Map<string, readonly number[]>();
  const tensors: TensorSlice<T>[] = [];

  for (const { stored, row, layer } of matched) {
    const position = layer === undefined ? undefined : newLayer.get(layer);
    if (layer !== undefined && position === undefined) continue;
    const axes = row.axes.map((axis, i) => {
      const id = indexSetId(row, i, kept, layer);
      if (id !== "" && !indexSets.has(id)) {
        indexSets.set(id, keptPositions(axis, architecture.sizes, lookup, layer === undefined ? {} : { layer }));
      }
      return id;
    });
    tensors.push({
      name: position === undefined ? stored.name : nameInLayer(row.name, position),
      source: stored,
      axes,
      shape: axes.map((id, i) => indexSets.get(id)?.length ?? stored.shape[i] ?? 0),
    });
  }
  return { indexSets, tensors };
}

// The same expression in the same layer keeps the same positions, whichever tensor it belongs to.
function indexSetId(row: ArchitectureRow, axis: number, kept: Kept, layer: number | undefined): string {
  const expression = row.axes[axis];
  const cut = (expression ? dimensionsOf(expression) : []).filter((name): name is keyof Kept => name in kept);
  if (cut.length === 0) return "";
  const text = row.axisTexts[axis] ?? "";
  const scoped = cut.some((name) => DIMENSION_SCOPES[name].some((outer) => outer === "layer"));
  return scoped ? `layers.${layer}: ${text}` : text;
}
