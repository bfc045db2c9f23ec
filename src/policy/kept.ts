import type { KeptLookup } from "./axes/evaluate.js";
import { DIMENSION_SCOPES, type PrunableDimension } from "./hyperparameters.js";

/** Kept positions, ascending; or one tree for each position of the enclosing dimension. */
export type KeptTree = readonly number[] | { readonly [outer: string]: KeptTree };

/** What is kept of each dimension that is cut; a dimension that is not named stays whole. */
export type Kept = Readonly<Partial<Record<PrunableDimension, KeptTree>>>;

/** Whether a tree is at its leaves. */
export function isPositions(tree: KeptTree): tree is readonly number[] {
  return Array.isArray(tree);
}

/** Answers axis expressions from the kept sets, by walking each tree through the dimensions that scope it. */
export function keptLookup(kept: Kept): KeptLookup {
  return (dimension, scope) => {
    if (!isPrunable(dimension)) return undefined;
    let tree = kept[dimension];
    for (const outer of DIMENSION_SCOPES[dimension]) {
      if (tree === undefined || isPositions(tree)) break;
      tree = tree[String(scope[outer])];
    }
    if (tree !== undefined && !isPositions(tree)) throw new RangeError(`${dimension} is read outside of its scope`);
    return tree;
  };
}

function isPrunable(dimension: string): dimension is PrunableDimension {
  return dimension in DIMENSION_SCOPES;
}
