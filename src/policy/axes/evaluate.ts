import type { Axis, Blocks, StoredAxis } from "./expression.js";

/** How many positions each dimension has. */
export type DimensionSizes = Readonly<Record<string, number>>;

/** Where an axis is being read: the positions of the dimensions that enclose it (`layer`, and the outer factors of a product). */
export type Scope = Readonly<Record<string, number>>;

/** The kept positions of a dimension within a scope, ascending; undefined where the dimension is left whole. */
export type KeptLookup = (dimension: string, scope: Scope) => readonly number[] | undefined;

/** The number of elements along an axis. Throws RangeError on a dimension that `sizes` lacks. */
export function axisSize(axis: StoredAxis, sizes: DimensionSizes): number {
  switch (axis.kind) {
    case "blocks":
      return Math.ceil(axisSize(axis.of, sizes) / axis.size);
    case "fixed":
      return axis.size;
    case "dimension": {
      const size = sizes[axis.name];
      if (size === undefined) throw new RangeError(`no size for dimension ${axis.name}`);
      return size;
    }
    case "product":
      return axis.factors.reduce((size, factor) => size * axisSize(factor, sizes), 1);
    case "concatenation":
      return axis.parts.reduce((size, part) => size + axisSize(part, sizes), 0);
  }
}

/** The flat positions along an axis that are kept, ascending. Inner factors may keep other positions in each outer one. */
export function keptPositions(axis: Axis, sizes: DimensionSizes, kept: KeptLookup, scope: Scope): number[] {
  const positions: number[] = [];
  collect(axis, sizes, kept, scope, 0, positions);
  return positions;
}

/** The blocks that are kept, ascending; undefined where one is kept in part. */
export function keptBlocks({ of, size }: Blocks, sizes: DimensionSizes, kept: KeptLookup, scope: Scope): number[] | undefined {
  const positions = keptPositions(of, sizes, kept, scope);
  const total = axisSize(of, sizes);
  const blocks: number[] = [];
  for (let at = 0; at < positions.length; ) {
    const first = positions[at] ?? 0;
    const length = Math.min(size, total - first);
    if (first % size !== 0 || positions[at + length - 1] !== first + length - 1) return undefined;
    blocks.push(first / size);
    at += length;
  }
  return blocks;
}

function collect(axis: Axis, sizes: DimensionSizes, kept: KeptLookup, scope: Scope, base: number, into: number[]): void {
  switch (axis.kind) {
    case "fixed":
      for (let i = 0; i < axis.size; i++) into.push(base + i);
      return;
    case "dimension": {
      const chosen = kept(axis.name, scope);
      if (chosen) for (const i of chosen) into.push(base + i);
      else for (let i = 0; i < axisSize(axis, sizes); i++) into.push(base + i);
      return;
    }
    case "concatenation": {
      let offset = base;
      for (const part of axis.parts) {
        collect(part, sizes, kept, scope, offset, into);
        offset += axisSize(part, sizes);
      }
      return;
    }
    case "product": {
      const [outer, ...rest] = axis.factors;
      if (!outer) return void into.push(base);
      const inner: Axis = { kind: "product", factors: rest };
      const stride = axisSize(inner, sizes);
      for (const i of keptPositions(outer, sizes, kept, scope)) {
        const within = outer.kind === "dimension" ? { ...scope, [outer.name]: i } : scope;
        collect(inner, sizes, kept, within, base + i * stride, into);
      }
    }
  }
}
