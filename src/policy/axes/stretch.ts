import { axisSize, type DimensionSizes, type KeptLookup, keptPositions, type Scope } from "./evaluate.js";
import type { Axis } from "./expression.js";

/** Some of an axis: one part of a concatenation, and that within one position of the outermost factor of a product. */
export interface Stretch {
  readonly part?: number;
  readonly outer?: number;
}

/** The kept positions along an axis that lie in a stretch of it, ascending. Throws RangeError where the axis has no such stretch. */
export function stretchPositions(axis: Axis, { part, outer }: Stretch, sizes: DimensionSizes, kept: KeptLookup, scope: Scope): number[] {
  if (outer !== undefined) {
    const { name, inner } = outermost(axis);
    const begin = outer * axisSize(inner, sizes);
    const within = part === undefined ? {} : { part };
    return stretchPositions(inner, within, sizes, kept, { ...scope, [name]: outer }).map((position) => begin + position);
  }
  if (part === undefined) return keptPositions(axis, sizes, kept, scope);
  if (axis.kind === "concatenation") {
    const begin = axis.parts.slice(0, part).reduce((sum, before) => sum + axisSize(before, sizes), 0);
    return keptPositions(axis.parts[part] ?? noStretch(), sizes, kept, scope).map((position) => begin + position);
  }
  const factor: Axis = { kind: "dimension", name: outermost(axis).name };
  return keptPositions(factor, sizes, kept, scope).flatMap((each) => stretchPositions(axis, { part, outer: each }, sizes, kept, scope));
}

/** The outermost dimension of a product, and what lies in each of its positions. */
export function outermost(axis: Axis): { name: string; inner: Axis } {
  const [first, ...rest] = axis.kind === "product" ? axis.factors : [];
  if (first?.kind !== "dimension") return noStretch();
  const [only] = rest;
  return { name: first.name, inner: only && rest.length === 1 ? only : { kind: "product", factors: rest } };
}

function noStretch(): never {
  throw new RangeError("the axis has no such stretch");
}
