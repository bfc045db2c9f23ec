import type { Architecture } from "./architecture.js";
import type { Scope } from "./axes/evaluate.js";
import { type Axis, dimensionsOf } from "./axes/expression.js";
import { type Stretch, stretchPositions } from "./axes/stretch.js";
import { DIMENSION_SCOPES } from "./hyperparameters.js";
import { type Kept, keptLookup } from "./kept.js";

/** The index sets of a cut. The same expression in the same scope keeps the same positions, whichever tensor it belongs to. */
export class IndexSets {
  readonly byId = new Map<string, readonly number[]>();
  readonly #lookup: ReturnType<typeof keptLookup>;
  readonly #sizes: Architecture["sizes"];
  readonly #kept: Kept;

  constructor({ sizes }: Architecture, kept: Kept) {
    this.#sizes = sizes;
    this.#kept = kept;
    this.#lookup = keptLookup(kept);
  }

  /** The id of the positions that an axis keeps, or empty where it stays whole. */
  idOf(axis: Axis, text: string, scope: Scope): string {
    return this.#cutDimensions(axis).length === 0 ? "" : this.#add(axis, text, scope, [{}]);
  }

  /** The id of the positions kept of some stretches of an axis of `size`, which lie behind each other; empty where they are the whole axis. */
  idOfStretches(axis: Axis, text: string, scope: Scope, stretches: readonly Stretch[], size: number): string {
    const names = stretches.map(({ part, outer }) => `[${outer ?? ""}${part === undefined ? "" : `.${part}`}]`);
    const id = this.#add(axis, text + names.join(""), scope, stretches);
    if (this.byId.get(id)?.length !== size) return id;
    this.byId.delete(id);
    return "";
  }

  /** The positions that a dimension keeps. */
  positions(dimension: string, scope: Scope): readonly number[] {
    return this.#lookup(dimension, scope) ?? Array.from({ length: this.#sizes[dimension] ?? 0 }, (_, position) => position);
  }

  /** The positions that some stretch of an axis keeps. */
  positionsOf(axis: Axis, stretch: Stretch, scope: Scope): readonly number[] {
    return stretchPositions(axis, stretch, this.#sizes, this.#lookup, scope);
  }

  /** Whether an axis keeps other positions in each expert. */
  variesByExpert(axis: Axis): boolean {
    return this.#cutDimensions(axis).some((name) => DIMENSION_SCOPES[name].some((outer) => outer === "expert"));
  }

  #add(axis: Axis, text: string, scope: Scope, stretches: readonly Stretch[]): string {
    const cut = this.#cutDimensions(axis);
    const scoped = (outer: "layer" | "expert"): boolean => cut.some((name) => DIMENSION_SCOPES[name].some((other) => other === outer));
    const id = [
      ...(scoped("layer") ? [`layers.${scope["layer"]}`] : []),
      ...(scoped("expert") ? [`experts.${scope["expert"]}`] : []),
      text,
    ].join(": ");
    if (!this.byId.has(id)) {
      this.byId.set(
        id,
        stretches.flatMap((stretch) => this.positionsOf(axis, stretch, scope)),
      );
    }
    return id;
  }

  #cutDimensions(axis: Axis): (keyof Kept)[] {
    return dimensionsOf(axis).filter((name): name is keyof Kept => name in this.#kept);
  }
}
