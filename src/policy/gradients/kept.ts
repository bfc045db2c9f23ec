import type { LAYER_SIZES } from "../hyperparameters.js";
import type { Kept } from "../kept.js";
import type { GradientSearch } from "../modes/gradnas.js";
import type { GradientSpace } from "./space.js";
import type { LayerCut } from "./unitCuts.js";

/** What a network that gradients chose keeps of every dimension that is cut in any of its layers. */
export function keptByGradients({ architecture, hyperparameters }: GradientSpace, { selection, layers, cutter }: GradientSearch): Kept {
  const parent = architecture.hyperparameters;
  const cuts = layers.map((): LayerCut => ({}));
  for (const one of hyperparameters) {
    const { byLayer } = cutter(one, selection[one.name] ?? 0);
    for (const [layer, cut] of byLayer) cuts[layer] = { ...cuts[layer], ...cut };
  }
  const isCut = (name: (typeof LAYER_SIZES)[number]): boolean => layers.some((sizes) => sizes[name] < (parent[name] ?? 0));
  const perGroup = parent.num_attention_heads / parent.num_query_groups;
  const isCutWithin = layers.some((sizes) => sizes.num_attention_heads / sizes.num_query_groups < perGroup);
  const every = (count = 0): number[] => Array.from({ length: count }, (_, position) => position);
  const inLayers = <T>(keep: (cut: LayerCut) => T): Record<string, T> => Object.fromEntries(cuts.map((cut, layer) => [layer, keep(cut)]));
  const groups = (cut: LayerCut): readonly number[] => cut.groups ?? every(parent.num_query_groups);
  const heads = (cut: LayerCut): Readonly<Record<string, readonly number[]>> =>
    cut.headsOf ?? Object.fromEntries(groups(cut).map((group) => [group, every(perGroup)]));
  return {
    ...(isCut("ffn_hidden_size") && { ffn: inLayers(({ channels }) => channels ?? every(parent.ffn_hidden_size)) }),
    ...(isCut("num_query_groups") && { group: inLayers(groups) }),
    ...(isCutWithin && { heads_of_group: inLayers(heads) }),
  };
}
