import { PruneError } from "../../errors.js";
import type { Architecture } from "../architecture.js";
import { FAMILIES } from "../families/registry.js";
import type { Masks } from "../families/table.js";
import { nameAt } from "../tensors.js";

/** What gradients are measured of: ones on units of a module's input or output. */
export interface MaskPoint {
  /** The hyperparameter's name, which the scores are stored under. */
  readonly key: string;
  /** Dotted module path. */
  readonly module: string;
  readonly side: "input" | "output";
  readonly units: number;
}

/** A dimension of units that masks stand on. */
export type MaskedDimension = keyof Masks;

/** Every dimension of units. */
export const MASKED: readonly MaskedDimension[] = ["ffn", "heads"];

/** The masks of a family. Throws BAD_MODE on one that has none. */
export function masksOf({ table }: Pick<Architecture, "table">): Masks {
  if (table.masks) return table.masks;
  const known = new Set(FAMILIES.flatMap(({ family, masks }) => (masks ? [family] : [])));
  throw new PruneError("BAD_MODE", `gradnas has no masks for the family ${table.family}`, {
    hint: `it prunes ${[...known].join(", ")}; "mcore_gpt_minitron" prunes ${table.family}`,
  });
}

/** Units that each layer has of a dimension. */
export function unitsOf({ hyperparameters }: Architecture, dimension: MaskedDimension): number {
  return (dimension === "ffn" ? hyperparameters.ffn_hidden_size : hyperparameters.num_attention_heads) ?? 0;
}

/** The name of a layer's hyperparameter. */
export function hyperparameterName(masks: Masks, dimension: MaskedDimension, layer: number): string {
  return nameAt(masks[dimension].name, { layer });
}

/** Every mask of an architecture, layer by layer. */
export function maskPoints(architecture: Architecture): MaskPoint[] {
  const masks = masksOf(architecture);
  return architecture.layers.flatMap((_, layer) =>
    MASKED.map((dimension) => ({
      key: hyperparameterName(masks, dimension, layer),
      module: nameAt(masks[dimension].module, { layer }),
      side: masks[dimension].side,
      units: unitsOf(architecture, dimension),
    })),
  );
}
