import type { Architecture, ModelConfig } from "../architecture.js";
import { LAYER_SIZES, type LayerSizes } from "../hyperparameters.js";
import type { GradientSearch } from "../modes/gradnas.js";
import { type Plan, planOf, planOfLayers } from "../plan.js";
import { keptByGradients } from "./kept.js";
import type { GradientSpace } from "./space.js";

/** The plan of a network that gradients chose: an ordinary one where a config can state its sizes. */
export function planByGradients(space: GradientSpace, config: ModelConfig, search: GradientSearch): Plan {
  const { architecture } = space;
  const { layers } = search;
  const kept = keptByGradients(space, search);
  const [first] = layers;
  if (!first || !isStatable(architecture, layers)) return planOfLayers("gradnas", architecture, layers, kept);
  return planOf("gradnas", architecture, config, first, kept);
}

function isStatable({ table, hyperparameters }: Architecture, layers: readonly LayerSizes[]): boolean {
  const [first] = layers;
  const alike = layers.every((sizes) => LAYER_SIZES.every((name) => sizes[name] === first?.[name]));
  const headsStay = first?.num_attention_heads === hyperparameters.num_attention_heads;
  return alike && (headsStay || !table.impliedHeadDim);
}
