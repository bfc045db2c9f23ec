import { PruneError } from "../../errors.js";

/**
 * One axis of a tensor as an expression over named dimensions: `group * heads_of_group * head_dim` is a product with its outermost factor
 * first, `ffn + ffn` a concatenation, a number a block of fixed size.
 */
export type Axis =
  | { readonly kind: "dimension"; readonly name: string }
  | { readonly kind: "fixed"; readonly size: number }
  | { readonly kind: "product"; readonly factors: readonly Axis[] }
  | { readonly kind: "concatenation"; readonly parts: readonly Axis[] };

/** An axis seen in blocks of `size` positions, of which the last may be shorter: one scale stands for each. */
export interface Blocks {
  readonly kind: "blocks";
  readonly of: Axis;
  readonly size: number;
}

/** An axis as tensors are stored with it. */
export type StoredAxis = Axis | Blocks;

const TOKEN = /\s*(?:([a-z_][a-z0-9_]*)|(\d+)|([*+()]))/y;

/** Reads an axis expression; `*` binds closer than `+`. Throws BAD_CONFIG on a malformed one, which is a defect of a family table. */
export function parseAxis(text: string): Axis {
  const tokens = tokenize(text);
  let next = 0;
  const fail = (): never => {
    throw new PruneError("BAD_CONFIG", `axis expression "${text}" is malformed at token ${next + 1}`);
  };

  function concatenation(): Axis {
    const parts = [product()];
    while (tokens[next] === "+") {
      next += 1;
      parts.push(product());
    }
    return parts.length === 1 && parts[0] ? parts[0] : { kind: "concatenation", parts };
  }
  function product(): Axis {
    const factors = [atom()];
    while (tokens[next] === "*") {
      next += 1;
      factors.push(atom());
    }
    return factors.length === 1 && factors[0] ? factors[0] : { kind: "product", factors };
  }
  function atom(): Axis {
    const token = tokens[next] ?? fail();
    next += 1;
    if (token === "(") {
      const inner = concatenation();
      if (tokens[next] !== ")") fail();
      next += 1;
      return inner;
    }
    if (/^\d/.test(token)) return { kind: "fixed", size: Number(token) };
    return /^[a-z_]/.test(token) ? { kind: "dimension", name: token } : fail();
  }

  const axis = concatenation();
  return next === tokens.length ? axis : fail();
}

function tokenize(text: string): string[] {
  const tokens: string[] = [];
  const source = text.trimEnd();
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < source.length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(source);
    if (!match) throw new PruneError("BAD_CONFIG", `axis expression "${text}" is malformed at character ${at + 1}`);
    tokens.push(match[1] ?? match[2] ?? match[3] ?? "");
  }
  return tokens;
}

/** The dimensions that an axis names, outermost first, without repeats. */
export function dimensionsOf(axis: StoredAxis): string[] {
  switch (axis.kind) {
    case "blocks":
      return dimensionsOf(axis.of);
    case "dimension":
      return [axis.name];
    case "fixed":
      return [];
    case "product":
      return [...new Set(axis.factors.flatMap(dimensionsOf))];
    case "concatenation":
      return [...new Set(axis.parts.flatMap(dimensionsOf))];
  }
}
