import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { outermost, type Stretch } from "./axes/stretch.js";
import { placeFinder } from "./childPlaces.js";
import { PADDED_VOCABULARY } from "./families/megatron.js";
import type { LayoutName } from "./families/table.js";
import { IndexSets } from "./indexSets.js";
import type { Kept } from "./kept.js";
import type { MatchedTensors } from "./matchTensors.js";
import { partShape, type Slices, scopeOf, sliceTensors, type TensorPart, type TensorSlice } from "./slices.js";
import { type ArchitectureRow, architectureRows, type MatchedTensor, nameAt, type Place, rowPlaces, type StoredTensor } from "./tensors.js";
import { tornBlocks } from "./tornBlocks.js";

/** Where a parent has what one row of the Hugging Face layout describes. */
interface Source {
  readonly row: ArchitectureRow;
  /** The part of the row's first axis; undefined for the whole of it. */
  readonly part: number | undefined;
}

/** A stretch of a stored tensor's first axis. */
interface Run<T extends StoredTensor> {
  readonly tensor: MatchedTensor<T>;
  readonly stretches: readonly Stretch[];
}

/** Turns kept sets into slices that lay the child out in one layout or another; by default that of the parent. Throws BAD_OPTION. */
export function slicesInto<T extends StoredTensor>(
  layout: LayoutName | undefined,
  architecture: Architecture,
  kept: Kept,
  matched: MatchedTensors<T>,
): Slices<T> {
  if (layout === undefined || layout === matched.layout) return sliceTensors(architecture, kept, matched.tensors);
  const { family, layouts } = architecture.table;
  if (!layouts.some(({ name }) => name === layout)) {
    throw new PruneError("BAD_OPTION", `${family} has no layout ${layout}`, {
      hint: `its layouts are ${layouts.map(({ name }) => name).join(", ")}`,
    });
  }
  return rearrangeTensors(architecture, kept, matched, layout);
}

/**
 * Turns kept sets into slices that lay the child out in another layout than the parent's: what Megatron-Core joins is taken apart, or the
 * other way round. The padding of a vocabulary is left out.
 *
 * @throws PruneError BAD_OPTION where the layouts of the family do not say how one comes from the other
 */
export function rearrangeTensors<T extends StoredTensor>(
  architecture: Architecture,
  kept: Kept,
  { layout, tensors }: MatchedTensors<T>,
  into: LayoutName,
): Slices<T> {
  const sets = new IndexSets(architecture, kept, (axis, tensor) => tornBlocks(architecture, tensors, tensor, axis));
  const newPlace = placeFinder(architecture, kept);
  const find = sourceFinder(architecture, layout, tensors);
  const slices = architectureRows(architecture, into)
    .filter((row) => !row.shared)
    .flatMap((row) =>
      [...rowPlaces(row, architecture)].flatMap((place) => {
        const to = newPlace(place);
        if (!to) return [];
        return [composeTensor(row, to, sets, joinRuns(sets, scopeOf(place), runsOf(sets, row, place, find)), place)];
      }),
    );
  return { indexSets: sets.byId, tensors: slices };
}

type Find<T extends StoredTensor> = (element: string, place: Place) => { tensor: MatchedTensor<T>; part: number | undefined };

function sourceFinder<T extends StoredTensor>(
  architecture: Architecture,
  layout: LayoutName,
  tensors: readonly MatchedTensor<T>[],
): Find<T> {
  const sources = new Map<string, Source[]>();
  for (const row of architectureRows(architecture, layout)) {
    for (const [index, element] of row.of.entries()) {
      sources.set(element, [...(sources.get(element) ?? []), { row, part: partOf(row, index) }]);
    }
  }
  const stored = new Map(tensors.map((tensor) => [nameAt(tensor.row.name, tensor), tensor]));
  return (element, place) => {
    const kind = architecture.layers[place.layer ?? 0];
    const source = sources.get(element)?.find(({ row }) => !kind || (row.on?.includes(kind) ?? true));
    const tensor = source && stored.get(nameAt(source.row.name, place));
    if (tensor) return { tensor, part: source.part };
    throw new PruneError("BAD_OPTION", `${architecture.table.family} cannot be converted from the layout ${layout}: it has no ${element}`, {
      hint: "slice into the parent's own layout",
    });
  };
}

function partOf({ of, axisTexts }: ArchitectureRow, index: number): number | undefined {
  if (of.length > 1) return index;
  return axisTexts[0] === PADDED_VOCABULARY ? 0 : undefined;
}

/** What a row of the child's layout is made of, in order along its first axis. */
function runsOf<T extends StoredTensor>(sets: IndexSets, row: ArchitectureRow, place: Place, find: Find<T>): Run<T>[] {
  const [axis] = row.axes;
  const runs = (stretch: Stretch): Run<T>[] =>
    row.of.map((element) => {
      const { tensor, part } = find(element, place);
      return { tensor, stretches: [{ ...stretch, ...(part !== undefined && { part }) }] };
    });
  if (row.of.length === 1 || axis?.kind !== "product") return runs({});
  return sets.positions(outermost(axis).name, scopeOf(place)).flatMap((outer) => runs({ outer }));
}

/** Joins runs of one stored tensor that lie behind each other in it. */
function joinRuns<T extends StoredTensor>(sets: IndexSets, scope: ReturnType<typeof scopeOf>, runs: readonly Run<T>[]): Run<T>[] {
  const joined: Run<T>[] = [];
  let last = -1;
  for (const run of runs) {
    const positions = run.stretches.flatMap((stretch) => sets.positionsOf(run.tensor, 0, scope, stretch));
    const before = joined.at(-1);
    if (before?.tensor === run.tensor && last < (positions[0] ?? 0)) {
      joined[joined.length - 1] = { tensor: run.tensor, stretches: [...before.stretches, ...run.stretches] };
    } else joined.push(run);
    last = positions.at(-1) ?? -1;
  }
  return joined;
}

function composeTensor<T extends StoredTensor>(
  row: ArchitectureRow,
  to: Place,
  sets: IndexSets,
  runs: readonly Run<T>[],
  place: Place,
): TensorSlice<T> {
  const scope = scopeOf(place);
  const parts = runs.map(({ tensor, stretches }): TensorPart<T> => {
    const [first, ...others] = tensor.row.axes.map((_, index) =>
      index === 0 ? sets.idOfStretches(tensor, scope, stretches) : sets.idOf(tensor, index, scope),
    );
    const shift = row.offset - tensor.row.offset;
    const axes = first === undefined ? [] : [first, ...others];
    return { source: tensor.stored, axes, blocks: [], ...(shift !== 0 && { shift }) };
  });
  const shapes = parts.map((part) => partShape(part, sets.byId));
  const [, ...inner] = shapes[0] ?? [];
  return { name: nameAt(row.name, to), parts, shape: [shapes.reduce((sum, [rows = 0]) => sum + rows, 0), ...inner] };
}
