import type { Architecture } from "./architecture.js";
import type { Scope } from "./axes/evaluate.js";
import { placeFinder } from "./childPlaces.js";
import { IndexSets } from "./indexSets.js";
import type { Kept } from "./kept.js";
import { type MatchedTensor, nameAt, type Place, type StoredTensor } from "./tensors.js";
import { tornBlocks } from "./tornBlocks.js";

/** How one tensor of the child comes from tensors of the parent: cut from one of them, or from several, joined along their first axis. */
export interface TensorSlice<T extends StoredTensor = StoredTensor> {
  readonly name: string;
  readonly parts: readonly TensorPart<T>[];
  readonly shape: readonly number[];
}

/** What is cut from one tensor of the parent. */
export interface TensorPart<T extends StoredTensor = StoredTensor> {
  readonly source: T;
  /** For each axis the id of an index set, or empty where the axis stays whole. */
  readonly axes: readonly string[];
  /**
   * Where the axes behind the first keep other positions at each of its positions: the ids of their sets, for each kept position of the
   * first axis. Then `axes` has the first axis only.
   */
  readonly blocks: readonly (readonly string[])[];
  /** What is added to each element, as layouts may differ by a constant. Without, bits stay as they are. */
  readonly shift?: number;
}

/** Everything a shim needs to know to cut: index sets once, and slices that refer to them. */
export interface Slices<T extends StoredTensor = StoredTensor> {
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly tensors: readonly TensorSlice<T>[];
}

/**
 * Turns kept sets into slices, in the order of the matched tensors. Tensors of dropped layers and experts are left out, those behind move
 * down.
 *
 * @throws PruneError UNSUPPORTED_QUANTIZATION where a cut goes through the blocks that the scales of a quantised weight stand for
 */
export function sliceTensors<T extends StoredTensor>(
  architecture: Architecture,
  kept: Kept,
  matched: readonly MatchedTensor<T>[],
): Slices<T> {
  const sets = new IndexSets(architecture, kept, (axis, tensor) => tornBlocks(architecture, matched, tensor, axis));
  const newPlace = placeFinder(architecture, kept);
  const tensors = matched.flatMap((tensor) => {
    const place = newPlace(tensor);
    return place ? [sliceTensor(sets, tensor, place)] : [];
  });
  return { indexSets: sets.byId, tensors };
}

function sliceTensor<T extends StoredTensor>(sets: IndexSets, tensor: MatchedTensor<T>, place: Place): TensorSlice<T> {
  const { stored, row, spelling, expert } = tensor;
  const scope = scopeOf(tensor);
  const idsAt = (first: number, within: Scope): string[] =>
    row.axes.slice(first).map((_, index) => sets.idOf(tensor, first + index, within));
  const varies = expert === undefined && row.axes.some((axis) => sets.variesByExpert(axis));
  const part: TensorPart<T> = varies
    ? {
        source: stored,
        axes: idsAt(0, scope).slice(0, 1),
        blocks: sets.positions("expert", scope).map((each) => idsAt(1, { ...scope, expert: each })),
      }
    : { source: stored, axes: idsAt(0, scope), blocks: [] };
  return { name: nameAt(spelling, place), parts: [part], shape: partShape(part, sets.byId) };
}

/** The scope in which the axes of a tensor are read. */
export function scopeOf({ layer, expert }: Place): Scope {
  return { ...(layer !== undefined && { layer }), ...(expert !== undefined && { expert }) };
}

/** The shape that a part is cut to. */
export function partShape({ source, axes, blocks }: TensorPart, indexSets: Slices["indexSets"]): number[] {
  const sizes = (ids: readonly string[], first: number): number[] =>
    ids.map((id, index) => indexSets.get(id)?.length ?? source.shape[first + index] ?? 0);
  return [...sizes(axes, 0), ...sizes(blocks[0] ?? [], 1)];
}
