import type { Architecture } from "./architecture.js";
import { keptPositions, type Scope } from "./axes/evaluate.js";
import { dimensionsOf } from "./axes/expression.js";
import { DIMENSION_SCOPES } from "./hyperparameters.js";
import { isPositions, type Kept, keptLookup } from "./kept.js";
import { keptLayers } from "./plan.js";
import { type MatchedTensor, nameAt, type Place, type StoredTensor } from "./tensors.js";

/** How one tensor of the child comes from one tensor of the parent. */
export interface TensorSlice<T extends StoredTensor = StoredTensor> {
  readonly name: string;
  readonly source: T;
  /** For each axis the id of an index set, or empty where the axis stays whole. */
  readonly axes: readonly string[];
  /**
   * Where the axes behind the first keep other positions at each of its positions: the ids of their sets, for each kept position of the
   * first axis. Then `axes` has the first axis only.
   */
  readonly blocks: readonly (readonly string[])[];
  readonly shape: readonly number[];
}

/** Everything a shim needs to know to cut: index sets once, and slices that refer to them. */
export interface Slices<T extends StoredTensor = StoredTensor> {
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly tensors: readonly TensorSlice<T>[];
}

/** Turns kept sets into slices, in the order of the matched tensors. Tensors of dropped layers and experts are left out, those behind move down. */
export function sliceTensors<T extends StoredTensor>(
  architecture: Architecture,
  kept: Kept,
  matched: readonly MatchedTensor<T>[],
): Slices<T> {
  const sets = new IndexSets(architecture, kept);
  const newPlace = placeFinder(architecture, kept);
  const tensors = matched.flatMap((tensor) => {
    const place = newPlace(tensor);
    return place ? [sliceTensor(architecture, sets, tensor, place)] : [];
  });
  return { indexSets: sets.byId, tensors };
}

function sliceTensor<T extends StoredTensor>(
  architecture: Architecture,
  sets: IndexSets,
  { stored, row, spelling, layer, expert }: MatchedTensor<T>,
  place: Place,
): TensorSlice<T> {
  const scope: Scope = { ...(layer !== undefined && { layer }), ...(expert !== undefined && { expert }) };
  const name = nameAt(spelling, place);
  const size = (ids: readonly string[], first = 0): number[] =>
    ids.map((id, i) => sets.byId.get(id)?.length ?? stored.shape[first + i] ?? 0);
  const idAt = (axis: number, within: Scope): string => sets.idOf(row.axes[axis], row.axisTexts[axis] ?? "", within);
  const every = row.axes.map((_, axis) => axis);

  if (expert !== undefined || !row.axes.some((axis) => sets.variesByExpert(axis))) {
    const axes = every.map((axis) => idAt(axis, scope));
    return { name, source: stored, axes, blocks: [], shape: size(axes) };
  }
  const experts = sets.positions("expert", scope) ?? Array.from({ length: architecture.sizes["expert"] ?? 0 }, (_, e) => e);
  const axes = [idAt(0, scope)];
  const blocks = experts.map((each) => every.slice(1).map((axis) => idAt(axis, { ...scope, expert: each })));
  return { name, source: stored, axes, blocks, shape: [...size(axes), ...size(blocks[0] ?? [], 1)] };
}

/** The index sets of a cut. The same expression in the same scope keeps the same positions, whichever tensor it belongs to. */
class IndexSets {
  readonly byId = new Map<string, readonly number[]>();
  readonly positions: ReturnType<typeof keptLookup>;
  readonly #sizes: Architecture["sizes"];
  readonly #kept: Kept;

  constructor({ sizes }: Architecture, kept: Kept) {
    this.#sizes = sizes;
    this.#kept = kept;
    this.positions = keptLookup(kept);
  }

  /** The id of the positions that an axis keeps, or empty where it stays whole. */
  idOf(axis: MatchedTensor["row"]["axes"][number] | undefined, text: string, scope: Scope): string {
    const cut = axis ? this.#cutDimensions(axis) : [];
    if (!axis || cut.length === 0) return "";
    const scoped = (outer: "layer" | "expert"): boolean => cut.some((name) => DIMENSION_SCOPES[name].some((other) => other === outer));
    const id = [
      ...(scoped("layer") ? [`layers.${scope["layer"]}`] : []),
      ...(scoped("expert") ? [`experts.${scope["expert"]}`] : []),
      text,
    ].join(": ");
    if (!this.byId.has(id)) this.byId.set(id, keptPositions(axis, this.#sizes, this.positions, scope));
    return id;
  }

  /** Whether an axis keeps other positions in each expert. */
  variesByExpert(axis: MatchedTensor["row"]["axes"][number]): boolean {
    return this.#cutDimensions(axis).some((name) => DIMENSION_SCOPES[name].some((outer) => outer === "expert"));
  }

  #cutDimensions(axis: MatchedTensor["row"]["axes"][number]): (keyof Kept)[] {
    return dimensionsOf(axis).filter((name): name is keyof Kept => name in this.#kept);
  }
}

/** Finds where a tensor's layer and expert come to lie in the child; undefined where they are dropped. */
function placeFinder(architecture: Architecture, kept: Kept): (place: Place) => Place | undefined {
  const layers = new Map(keptLayers(kept, architecture.hyperparameters.num_layers).map((layer, position) => [layer, position]));
  const experts = kept.expert;
  const expertAt = (layer: number, expert: number): number | undefined => {
    const staying = experts && !isPositions(experts) ? experts[String(layer)] : undefined;
    if (staying === undefined || !isPositions(staying)) return expert;
    const position = staying.indexOf(expert);
    return position < 0 ? undefined : position;
  };
  return ({ layer, expert }) => {
    if (layer === undefined) return { layer, expert };
    const newLayer = layers.get(layer);
    if (newLayer === undefined || expert === undefined) return newLayer === undefined ? undefined : { layer: newLayer, expert };
    const newExpert = expertAt(layer, expert);
    return newExpert === undefined ? undefined : { layer: newLayer, expert: newExpert };
  };
}
