import { type Architecture, layersWith } from "./architecture.js";
import type { Hyperparameters, PrunableDimension } from "./hyperparameters.js";
import type { Kept } from "./kept.js";
import { type Ranking, type Scores, topPositions } from "./rank.js";

/** The top of each of `groups` equal stretches, as positions within them. */
function topWithin(scores: Scores, groups: number, n: number): number[][] {
  const all = Array.from(scores);
  const size = all.length / groups;
  return Array.from({ length: groups }, (_, group) => topPositions(all.slice(group * size, (group + 1) * size), n));
}

/**
 * Chooses what to keep. Layers and hidden channels are kept of the whole model, everything else by each kept layer: groups first, then as
 * many heads inside each kept group; experts (as many in each of the router's groups), then channels of each kept expert; channels of Mamba
 * heads, the same in all heads, then as many heads in each group. Dimensions whose size does not change are left out.
 */
export function chooseKept(architecture: Architecture, child: Hyperparameters, ranking: Ranking): Kept {
  const parent = architecture.hyperparameters;
  const layers = child.num_layers < parent.num_layers ? topPositions(ranking.layers(), child.num_layers) : undefined;
  const inLayers = <T>(dimension: PrunableDimension, choose: (layer: number) => T): Record<string, T> => {
    const having = layersWith(architecture, dimension).filter((layer) => layers?.includes(layer) ?? true);
    return Object.fromEntries(having.map((layer) => [layer, choose(layer)]));
  };
  return {
    ...(layers && { layer: layers }),
    ...(child.hidden_size < parent.hidden_size && { hidden: topPositions(ranking.hidden(), child.hidden_size) }),
    ...keepWidth("ffn", parent.ffn_hidden_size, child.ffn_hidden_size, (n) =>
      inLayers("ffn", (layer) => topPositions(ranking.ffn(layer), n)),
    ),
    ...keepHeads(parent, child, ranking, inLayers),
    ...keepExperts(parent, child, ranking, inLayers),
    ...keepWidth("moe_shared_ffn", parent.moe_shared_expert_intermediate_size, child.moe_shared_expert_intermediate_size, (n) =>
      inLayers("moe_shared_ffn", (layer) => topPositions(ranking.sharedExpertFfn(layer), n)),
    ),
    ...keepMambaHeads(parent, child, ranking, inLayers),
  };
}

type InLayers = <T>(dimension: PrunableDimension, choose: (layer: number) => T) => Record<string, T>;

function keepWidth(
  dimension: PrunableDimension,
  parent: number | undefined,
  child: number | undefined,
  choose: (n: number) => Kept[PrunableDimension],
): Kept {
  return child !== undefined && parent !== undefined && child < parent ? { [dimension]: choose(child) } : {};
}

function keepHeads(parent: Hyperparameters, child: Hyperparameters, ranking: Ranking, inLayers: InLayers): Kept {
  const [perGroup, keptPerGroup] = [parent, child].map((side) => side.num_attention_heads / side.num_query_groups) as [number, number];
  const groups =
    child.num_query_groups < parent.num_query_groups
      ? inLayers("group", (layer) => topPositions(ranking.groups(layer), child.num_query_groups))
      : undefined;
  const headsWithin = (layer: number): Record<string, number[]> => {
    const tops = topWithin(ranking.heads(layer), parent.num_query_groups, keptPerGroup);
    const kept = groups?.[layer] ?? tops.map((_, group) => group);
    return Object.fromEntries(kept.map((group) => [group, tops[group] ?? []]));
  };
  return {
    ...(groups && { group: groups }),
    ...(keptPerGroup < perGroup && { heads_of_group: inLayers("heads_of_group", headsWithin) }),
  };
}

function keepExperts(parent: Hyperparameters, child: Hyperparameters, ranking: Ranking, inLayers: InLayers): Kept {
  const { num_moe_experts: all = 0, moe_router_num_groups: groups = 1, moe_ffn_hidden_size: width = 0 } = parent;
  const { num_moe_experts: staying = 0, moe_ffn_hidden_size: keptWidth = 0 } = child;
  const experts =
    staying < all
      ? inLayers("expert", (layer) =>
          topWithin(ranking.experts(layer), groups, staying / groups).flatMap((tops, group) =>
            tops.map((at) => (group * all) / groups + at),
          ),
        )
      : undefined;
  const everyExpert = Array.from({ length: all }, (_, expert) => expert);
  const channels = (layer: number): Record<string, number[]> =>
    Object.fromEntries(
      (experts?.[layer] ?? everyExpert).map((expert) => [expert, topPositions(ranking.expertFfn(layer, expert), keptWidth)]),
    );
  return { ...(experts && { expert: experts }), ...(keptWidth < width && { moe_ffn: inLayers("moe_ffn", channels) }) };
}

function keepMambaHeads(parent: Hyperparameters, child: Hyperparameters, ranking: Ranking, inLayers: InLayers): Kept {
  const { mamba_num_heads: heads = 0, mamba_head_dim: channels = 0, mamba_num_groups: groups = 1 } = parent;
  const { mamba_num_heads: keptHeads = 0, mamba_head_dim: keptChannels = 0 } = child;
  const dims =
    keptChannels < channels ? inLayers("mamba_head_dim", (layer) => topPositions(ranking.mambaHeadDims(layer), keptChannels)) : undefined;
  const everyChannel = Array.from({ length: channels }, (_, channel) => channel);
  const headsWithin = (layer: number): Record<string, number[]> => {
    const scores = ranking.mambaHeads(layer, dims?.[layer] ?? everyChannel);
    return Object.fromEntries(topWithin(scores, groups, keptHeads / groups).map((tops, group) => [group, tops]));
  };
  return {
    ...(dims && { mamba_head_dim: dims }),
    ...(keptHeads < heads && { mamba_heads_of_group: inLayers("mamba_heads_of_group", headsWithin) }),
  };
}
