import { DTYPE_BITS, type Dtype } from "../tensor.js";

/** The positions of an axis that are kept, ascending; undefined where all are. */
export type KeptAxis = readonly number[] | undefined;

/** A tensor and what a cut keeps of it. */
export interface CutTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly axes: readonly KeptAxis[];
  /** Where the axes behind the first keep other positions at each of its positions: theirs, for each kept position of the first. */
  readonly blocks: readonly (readonly KeptAxis[])[];
  /** What is added to each element. */
  readonly shift?: number;
}

/** A stretch of a row of the child, and the stretch of the parent's row within which it lies. Positions are those of elements. */
export interface Segment {
  readonly childFirst: number;
  readonly childEnd: number;
  readonly parentFirst: number;
  readonly parentEnd: number;
  /** Where each item of the child lies, counted in items from `parentFirst`; undefined where they come in a row. */
  readonly picks: Uint32Array | undefined;
}

/** A segment of one row, and where it lies: bytes from the beginnings of the tensors. */
export interface RowPiece {
  readonly row: number;
  readonly parentRow: number;
  readonly segment: Segment;
  readonly childBegin: number;
  readonly childEnd: number;
  readonly parentBegin: number;
  readonly parentEnd: number;
}

/** What moves as a whole: an element, or as many as make whole bytes. */
export function itemOf(dtype: Dtype): { elements: number; bytes: number } {
  const elements = 8 / gcd(DTYPE_BITS[dtype], 8);
  return { elements, bytes: (elements * DTYPE_BITS[dtype]) / 8 };
}

/** The shape after the cut. */
export function cutShape({ shape, axes, blocks }: CutTensor): number[] {
  const inner = blocks[0];
  return shape.map((size, axis) => (inner && axis > 0 ? inner[axis - 1] : axes[axis])?.length ?? size);
}

/** How many rows a cut tensor has: stretches along its last axis. */
export function rowCount(tensor: CutTensor): number {
  return cutShape(inRows(tensor)).slice(0, -1).reduce(product, 1);
}

/**
 * The pieces of some of the rows that a cut makes, each of which spans at most `span` bytes of the parent.
 *
 * @param rows - ascending
 */
export function* rowPieces(cut: CutTensor, rows: Iterable<number>, span: number): Generator<RowPiece> {
  const tensor = inRows(cut);
  const shape = cutShape(tensor);
  const [length = 1, parentLength = 1] = [shape, tensor.shape].map((sizes) => sizes.at(-1));
  const bytesOf = (elements: number): number => (elements * DTYPE_BITS[tensor.dtype]) / 8;
  const segments = new Map<KeptAxis, readonly Segment[]>();
  for (const row of rows) {
    const { parentRow, kept } = sourceOf(tensor, shape, row);
    if (!segments.has(kept)) segments.set(kept, [...segmentsOf(kept, length, tensor.dtype, span)]);
    const [childStart, parentStart] = [row * length, parentRow * parentLength];
    for (const segment of segments.get(kept) ?? []) {
      yield {
        row,
        parentRow,
        segment,
        childBegin: bytesOf(childStart + segment.childFirst),
        childEnd: bytesOf(childStart + segment.childEnd),
        parentBegin: bytesOf(parentStart + segment.parentFirst),
        parentEnd: bytesOf(parentStart + segment.parentEnd),
      };
    }
  }
}

function* segmentsOf(kept: KeptAxis, length: number, dtype: Dtype, span: number): Generator<Segment> {
  const { elements, bytes } = itemOf(dtype);
  const most = Math.max(1, Math.floor(span / bytes)) * elements;
  for (let first = 0; first < length; ) {
    const from = kept?.[first] ?? first;
    let end = kept ? first + elements : Math.min(length, first + most);
    while (kept && end < length && (kept[end] ?? 0) - from < most) end += elements;
    const picks =
      kept && Uint32Array.from({ length: (end - first) / elements }, (_, i) => ((kept[first + i * elements] ?? 0) - from) / elements);
    yield {
      childFirst: first,
      childEnd: end,
      parentFirst: from,
      parentEnd: (kept?.[end - 1] ?? end - 1) + 1,
      picks,
    };
    first = end;
  }
}

/** A tensor with at least one axis, whose rows are whole bytes: one that is not cut may be packed across its rows. */
function inRows(tensor: CutTensor): CutTensor {
  const { dtype, shape, axes, blocks } = tensor;
  const whole = blocks.length === 0 && axes.every((kept) => kept === undefined);
  const torn = ((shape.at(-1) ?? 1) * DTYPE_BITS[dtype]) % 8 !== 0;
  return shape.length === 0 || (whole && torn) ? { dtype, shape: [shape.reduce(product, 1)], axes: [undefined], blocks: [] } : tensor;
}

/** The parent's row that a row comes from, and the positions along it. */
function sourceOf({ shape, axes, blocks }: CutTensor, child: readonly number[], row: number): { parentRow: number; kept: KeptAxis } {
  const at: number[] = [];
  let rest = row;
  for (const size of child.slice(0, -1).reverse()) {
    at.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  const keptOf = (axis: number): KeptAxis => (axis > 0 && blocks.length > 0 ? blocks[at[0] ?? 0]?.[axis - 1] : axes[axis]);
  const parentRow = at.reduce((sofar, position, axis) => sofar * (shape[axis] ?? 1) + (keptOf(axis)?.[position] ?? position), 0);
  return { parentRow, kept: keptOf(shape.length - 1) };
}

function product(a: number, b: number): number {
  return a * b;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
