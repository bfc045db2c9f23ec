import type { Axis } from "../axes/expression.js";

/** A sum of products of dimensions: how a count depends on the sizes. */
export type Polynomial = readonly Term[];

/** A factor times a product of dimensions, each named as often as it is multiplied. */
export interface Term {
  readonly factor: number;
  readonly dimensions: readonly string[];
}

/** The size of an axis as a polynomial in its dimensions. */
export function axisPolynomial(axis: Axis): Polynomial {
  switch (axis.kind) {
    case "fixed":
      return [{ factor: axis.size, dimensions: [] }];
    case "dimension":
      return [{ factor: 1, dimensions: [axis.name] }];
    case "product":
      return axis.factors.map(axisPolynomial).reduce(multiply, constant(1));
    case "concatenation":
      return sum(...axis.parts.map(axisPolynomial));
  }
}

/** A number as a polynomial. */
export function constant(factor: number): Polynomial {
  return [{ factor, dimensions: [] }];
}

/** A product of dimensions. */
export function product(...dimensions: string[]): Polynomial {
  return [{ factor: 1, dimensions: dimensions.toSorted() }];
}

/** The sum of polynomials; terms of the same dimensions become one. */
export function sum(...polynomials: readonly Polynomial[]): Polynomial {
  const terms = new Map<string, Term>();
  for (const term of polynomials.flat()) {
    const key = term.dimensions.join(" ");
    terms.set(key, { factor: (terms.get(key)?.factor ?? 0) + term.factor, dimensions: term.dimensions });
  }
  return [...terms.values()];
}

/** The product of two polynomials. */
export function multiply(a: Polynomial, b: Polynomial): Polynomial {
  return sum(
    a.flatMap((left) =>
      b.map((right) => ({ factor: left.factor * right.factor, dimensions: [...left.dimensions, ...right.dimensions].toSorted() })),
    ),
  );
}

/** A polynomial times a number. */
export function scale(polynomial: Polynomial, factor: number): Polynomial {
  return polynomial.map((term) => ({ ...term, factor: term.factor * factor }));
}

/** Puts numbers for some dimensions; what remains depends on the others alone. */
export function substitute(polynomial: Polynomial, sizes: Readonly<Record<string, number>>): Polynomial {
  return sum(
    polynomial.map(({ factor, dimensions }) => ({
      factor: dimensions.reduce((value, name) => value * (sizes[name] ?? 1), factor),
      dimensions: dimensions.filter((name) => sizes[name] === undefined),
    })),
  );
}

/** The value where every dimension that is left has a size. */
export function evaluate(polynomial: Polynomial, sizes: Readonly<Record<string, number>>): number {
  return polynomial.reduce(
    (total, { factor, dimensions }) => total + dimensions.reduce((value, name) => value * (sizes[name] ?? Number.NaN), factor),
    0,
  );
}
