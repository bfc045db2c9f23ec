import type { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { keptBlocks, type Scope } from "./axes/evaluate.js";
import { dimensionsOf, type StoredAxis } from "./axes/expression.js";
import { type Stretch, stretchPositions } from "./axes/stretch.js";
import { DIMENSION_SCOPES } from "./hyperparameters.js";
import { type Kept, keptLookup } from "./kept.js";
import type { MatchedTensor } from "./tensors.js";

/** The index sets of a cut. The same expression in the same scope keeps the same positions, whichever tensor it belongs to. */
export class IndexSets {
  readonly byId = new Map<string, readonly number[]>();
  readonly #lookup: ReturnType<typeof keptLookup>;
  readonly #sizes: Architecture["sizes"];
  readonly #kept: Kept;
  readonly #torn: (axis: number, tensor: MatchedTensor) => PruneError;

  /** @param torn - makes the refusal of a cut that keeps a block of an axis in part */
  constructor({ sizes }: Architecture, kept: Kept, torn: (axis: number, tensor: MatchedTensor) => PruneError) {
    this.#sizes = sizes;
    this.#kept = kept;
    this.#torn = torn;
    this.#lookup = keptLookup(kept);
  }

  /** The id of the positions that a tensor's axis keeps, or empty where it stays whole. */
  idOf(tensor: MatchedTensor, index: number, scope: Scope): string {
    const axis = tensor.row.axes[index];
    return !axis || this.#cutDimensions(axis).length === 0 ? "" : this.#add(tensor, index, scope, [{}]);
  }

  /** The id of the positions kept of some stretches of a tensor's first axis, which lie behind each other; empty where they are all of it. */
  idOfStretches(tensor: MatchedTensor, scope: Scope, stretches: readonly Stretch[]): string {
    const id = this.#add(tensor, 0, scope, stretches);
    if (this.byId.get(id)?.length !== tensor.stored.shape[0]) return id;
    this.byId.delete(id);
    return "";
  }

  /** The positions that a dimension keeps. */
  positions(dimension: string, scope: Scope): readonly number[] {
    return this.#lookup(dimension, scope) ?? Array.from({ length: this.#sizes[dimension] ?? 0 }, (_, position) => position);
  }

  /** The positions that a stretch of a tensor's axis keeps. */
  positionsOf(tensor: MatchedTensor, index: number, scope: Scope, stretch: Stretch): readonly number[] {
    const axis = tensor.row.axes[index];
    if (!axis) return [0];
    if (axis.kind !== "blocks") return stretchPositions(axis, stretch, this.#sizes, this.#lookup, scope);
    const blocks = keptBlocks(axis, this.#sizes, this.#lookup, scope);
    if (!blocks) throw this.#torn(index, tensor);
    return blocks;
  }

  /** Whether an axis keeps other positions in each expert. */
  variesByExpert(axis: StoredAxis): boolean {
    return this.#cutDimensions(axis).some((name) => DIMENSION_SCOPES[name].some((outer) => outer === "expert"));
  }

  #add(tensor: MatchedTensor, index: number, scope: Scope, stretches: readonly Stretch[]): string {
    const { axes, axisTexts } = tensor.row;
    const axis = axes[index];
    const cut = axis ? this.#cutDimensions(axis) : [];
    const scoped = (outer: "layer" | "expert"): boolean => cut.some((name) => DIMENSION_SCOPES[name].some((other) => other === outer));
    const id = [
      ...(scoped("layer") ? [`layers.${scope["layer"]}`] : []),
      ...(scoped("expert") ? [`experts.${scope["expert"]}`] : []),
      `${axisTexts[index]}${stretches.map(nameStretch).join("")}`,
    ].join(": ");
    if (!this.byId.has(id)) {
      this.byId.set(
        id,
        stretches.flatMap((stretch) => this.positionsOf(tensor, index, scope, stretch)),
      );
    }
    return id;
  }

  #cutDimensions(axis: StoredAxis): (keyof Kept)[] {
    return dimensionsOf(axis).filter((name): name is keyof Kept => name in this.#kept);
  }
}

function nameStretch({ part, outer }: Stretch): string {
  return part === undefined && outer === undefined ? "" : `[${outer ?? ""}${part === undefined ? "" : `.${part}`}]`;
}
