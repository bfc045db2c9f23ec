import { PruneError } from "../errors.js";
import type { Architecture, ModelConfig } from "./architecture.js";
import type { HyperparameterName, Hyperparameters } from "./hyperparameters.js";

/** Config fields to set, by their name in config.json. */
export type ConfigPatch = Readonly<Record<string, unknown>>;

/**
 * The config fields in which a child differs from its parent. Sizes that were implicit become explicit: a head_dim that stood for h/H would
 * change with either of them.
 *
 * @param keptLayers - the parent's layers that stay, in order
 */
export function patchConfig(config: ModelConfig, parent: Architecture, child: Hyperparameters, keptLayers: readonly number[]): ConfigPatch {
  const { fields, perLayerLists, layerThresholds } = parent.table;
  const patch: Record<string, unknown> = {};
  for (const name of Object.keys(fields) as HyperparameterName[]) {
    const { key } = fields[name];
    if (config[key] !== child[name]) patch[key] = child[name];
  }
  const layers = parent.hyperparameters.num_layers;
  if (keptLayers.length === layers) return patch;
  for (const key of perLayerLists) {
    const list = config[key];
    if (list === undefined || list === null) continue;
    patch[key] = pickLayers(key, list, layers, keptLayers);
  }
  for (const key of layerThresholds) {
    const threshold = config[key];
    if (typeof threshold === "number" && threshold < layers) patch[key] = keptLayers.filter((layer) => layer < threshold).length;
  }
  return patch;
}

/** A config with a patch applied; fields keep their order and new ones follow. */
export function applyPatch(config: ModelConfig, patch: ConfigPatch): ModelConfig {
  return { ...config, ...patch };
}

function pickLayers(key: string, list: unknown, layers: number, keptLayers: readonly number[]): unknown[] {
  if (Array.isArray(list) && list.length === layers) return keptLayers.map((layer): unknown => list[layer]);
  throw new PruneError("BAD_CONFIG", `config.json: ${key} must be a list with one entry for each of the ${layers} layers`);
}
