import { type Architecture, sizesAt, withLayerSizes } from "../architecture.js";
import { axisSize } from "../axes/evaluate.js";
import { parseAxis } from "../axes/expression.js";
import type { LayerSizes } from "../hyperparameters.js";
import type { ModuleSizes } from "../network/child.js";
import { architectureRows, nameAt, rowPlaces, rowShape } from "../tensors.js";
import { MASKED, masksOf } from "./masks.js";

const WEIGHT = ".weight";

type Attributes = Readonly<Record<string, number>>;

/** The modules of a network whose attributes count something else once its layers have sizes of their own. */
export function changedModules(parent: Architecture, layers: readonly LayerSizes[]): ModuleSizes[] {
  const child = withLayerSizes(parent, layers);
  const [before, after] = [countsOf(parent), countsOf(child)];
  return [...after].flatMap(([module, attributes]) => {
    const old = before.get(module);
    const changed = Object.entries(attributes).filter(([name, count]) => count !== old?.[name]);
    return changed.length === 0 ? [] : [{ module, attributes: Object.fromEntries(changed) }];
  });
}

/** What linear layers, and modules that masks name, count. */
function countsOf(architecture: Architecture): Map<string, Attributes> {
  const counts = new Map<string, Attributes>();
  for (const row of architectureRows(architecture)) {
    if (!row.perLayer || !row.multiplies || !row.name.endsWith(WEIGHT)) continue;
    for (const place of rowPlaces(row, architecture)) {
      const [out_features = 0, in_features = 0] = rowShape(row, architecture, place.layer);
      counts.set(nameAt(row.name.slice(0, -WEIGHT.length), place), { in_features, out_features });
    }
  }
  const masks = masksOf(architecture);
  for (const dimension of MASKED) {
    for (const [module, counted] of Object.entries(masks[dimension].attributes)) {
      for (const layer of architecture.layers.keys()) counts.set(nameAt(module, { layer }), evaluated(architecture, counted, layer));
    }
  }
  return counts;
}

function evaluated(architecture: Architecture, counted: Readonly<Record<string, string>>, layer: number): Attributes {
  const sizes = sizesAt(architecture, layer);
  return Object.fromEntries(Object.entries(counted).map(([name, axis]) => [name, axisSize(parseAxis(axis), sizes)]));
}
