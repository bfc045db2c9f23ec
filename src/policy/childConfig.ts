import { type Architecture, type ModelConfig, statedKeys } from "./architecture.js";
import type { FamilyTable } from "./families/table.js";
import { HYPERPARAMETERS, type Hyperparameters } from "./hyperparameters.js";
import { patchLayers } from "./layers.js";
import { renumberModules } from "./quantizedModules.js";

/** Config fields to set, by their name in config.json. */
export type ConfigPatch = Readonly<Record<string, unknown>>;

/**
 * The config fields in which a child differs from its parent. Sizes that were implicit become explicit: a head_dim that stood for h/H would
 * change with either of them.
 *
 * @param keptLayers - the parent's layers that stay, in order
 * @throws PruneError UNSUPPORTED_QUANTIZATION where its lists of quantised modules cannot be renumbered
 */
export function patchConfig(config: ModelConfig, parent: Architecture, child: Hyperparameters, keptLayers: readonly number[]): ConfigPatch {
  const { fields } = parent.table;
  const patch: Record<string, unknown> = {};
  for (const name of HYPERPARAMETERS) {
    const field = fields[name];
    if (!field || child[name] === undefined || (name === "kv_channels" && parent.table.impliedHeadDim)) continue;
    // Under other spellings too, where the parent has them: not every loader knows all.
    for (const key of [field.key, ...statedKeys(config, field)]) {
      if (config[key] !== child[name]) patch[key] = child[name];
    }
  }
  const ahead = headsAhead(config, parent.table);
  if (ahead !== undefined) patch[ahead] = 0;
  const { num_layers: layers, num_moe_experts: experts = 0 } = parent.hyperparameters;
  if (parent.quantization) {
    const { key } = parent.quantization;
    const dropped = [
      ...(keptLayers.length < layers ? (["layers"] as const) : []),
      ...((child.num_moe_experts ?? 0) < experts ? (["experts"] as const) : []),
    ];
    const renumbered = renumberModules(config[key], keptLayers, dropped);
    if (JSON.stringify(renumbered) !== JSON.stringify(config[key])) patch[key] = renumbered;
  }
  return keptLayers.length === layers ? patch : { ...patch, ...patchLayers(config, parent.table, parent.layers, keptLayers) };
}

/** The config field that states heads for several tokens ahead, where it states some. */
export function headsAhead(config: ModelConfig, { multiTokenPrediction }: FamilyTable): string | undefined {
  const stated = multiTokenPrediction && config[multiTokenPrediction.key];
  return typeof stated === "number" && stated > 0 ? multiTokenPrediction?.key : undefined;
}
