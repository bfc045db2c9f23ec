import type { Architecture } from "./architecture.js";
import { isPositions, type Kept } from "./kept.js";
import { keptLayers } from "./plan.js";
import type { Place } from "./tensors.js";

/** Finds where a tensor's layer and expert come to lie in the child; undefined where they are dropped. */
export function placeFinder(architecture: Architecture, kept: Kept): (place: Place) => Place | undefined {
  const layers = new Map(keptLayers(kept, architecture.hyperparameters.num_layers).map((layer, position) => [layer, position]));
  const experts = kept.expert;
  const expertAt = (layer: number, expert: number): number | undefined => {
    const staying = experts && !isPositions(experts) ? experts[String(layer)] : undefined;
    if (staying === undefined || !isPositions(staying)) return expert;
    const position = staying.indexOf(expert);
    return position < 0 ? undefined : position;
  };
  return ({ layer, expert }) => {
    if (layer === undefined) return { layer, expert };
    const newLayer = layers.get(layer);
    if (newLayer === undefined || expert === undefined) return newLayer === undefined ? undefined : { layer: newLayer, expert };
    const newExpert = expertAt(layer, expert);
    return newExpert === undefined ? undefined : { layer: newLayer, expert: newExpert };
  };
}
