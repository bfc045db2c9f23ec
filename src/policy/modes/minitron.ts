import type { Architecture, ModelConfig } from "../architecture.js";
import { makePlan, outlinePlan, type Plan, refuseLayered } from "../plan.js";
import { type Ranking, rankByActivation, rankByPosition, topPositions } from "../rank.js";
import type { Accumulators } from "../scores.js";
import type { Bounds } from "../search/bounds.js";
import type { Workload } from "../search/metrics.js";
import type { Divisors, SearchConfig } from "../search/options.js";
import {
  type Candidate,
  choosesAmongKinds,
  outlineSubnets,
  type SearchOutline,
  type SearchResult,
  searchSubnets,
} from "../search/search.js";
import { type SearchSpace, searchSpace } from "../search/space.js";
import type { MinitronOptions } from "./modes.js";

/** What the mode needs of a model: what it is, and what was measured of it. */
export interface ScorableModel {
  readonly architecture: Architecture;
  readonly config: ModelConfig;
  /** Measures every hook point, or gives what was measured before. */
  scores(): Promise<Accumulators>;
  /** How good a candidate is, higher = better; undefined where nothing can tell. The model is afterwards as it was. */
  evaluate?: ((plan: Plan, candidate: Candidate) => Promise<number>) | undefined;
}

/** A candidate of a search, and how good it is where that was asked. */
export interface ScoredCandidate extends Candidate {
  readonly score?: number;
}

/** How a search came to its plan. */
export interface SearchOutcome {
  readonly plan: Plan;
  readonly found: SearchResult;
  /** The candidates in the order in which they were scored. */
  readonly candidates: readonly ScoredCandidate[];
  readonly best: ScoredCandidate;
}

/** What a search tells as it goes. */
export interface SearchListener {
  readonly onFound?: ((found: SearchResult) => void) | undefined;
  readonly onScored?: ((candidate: ScoredCandidate, index: number, of: number) => void) | undefined;
}

/**
 * Decides how to prune a decoder to an export_config: ranks every dimension by activation and keeps the best.
 *
 * @throws PruneError BAD_EXPORT_CONFIG before anything is measured
 */
export async function planMinitron(model: ScorableModel, exportConfig: unknown, options: MinitronOptions): Promise<Plan> {
  const { architecture, config } = model;
  outlinePlan(architecture, config, exportConfig);
  return makePlan(architecture, config, exportConfig, await rankingOf(model, options));
}

/**
 * Decides how to prune a decoder under bounds: walks the space of sizes, evaluates the largest candidates that meet all bounds, and takes the
 * best; without an evaluation the largest.
 *
 * @throws PruneError BAD_CONSTRAINTS or BAD_OPTION before anything is measured; BAD_CONSTRAINTS also then, where the layers that stay exceed
 *   a bound that others would meet; what measuring and evaluating throw, as it is
 */
export async function searchMinitron(
  model: ScorableModel,
  bounds: Bounds,
  options: MinitronOptions & SearchConfig & Pick<Workload, "flopsOf">,
  listener: SearchListener = {},
): Promise<SearchOutcome> {
  const { architecture, config } = model;
  outlineCandidates(architecture, bounds, options);
  const ranking = await rankingOf(model, options);
  const found = findCandidates(architecture, bounds, options, ranking);
  listener.onFound?.(found);
  const planOf = (candidate: Candidate): Plan => makePlan(architecture, config, candidate.exportConfig, ranking);
  const scored: ScoredCandidate[] = [];
  for (const [index, candidate] of found.candidates.entries()) {
    const judged = model.evaluate ? { ...candidate, score: await model.evaluate(planOf(candidate), candidate) } : candidate;
    scored.push(judged);
    listener.onScored?.(judged, index, found.candidates.length);
  }
  const best = scored.reduce((most, next) => ((next.score ?? 0) > (most.score ?? 0) ? next : most));
  return { plan: planOf(best), found, candidates: scored, best };
}

type FindOptions = Divisors & SearchConfig & Pick<Workload, "flopsOf">;
type LayerRanking = Pick<Ranking, "layers">;

/**
 * What can be told of a search before anything is measured, or with a ranking already at hand: the candidates where they are certain.
 *
 * @throws PruneError BAD_CONSTRAINTS where no candidate is within bounds, whichever layers a ranking will keep
 */
export function outlineCandidates(architecture: Architecture, bounds: Bounds, options: FindOptions, ranking?: LayerRanking): SearchOutline {
  const space = spaceOf(architecture, options);
  if (ranking || !choosesAmongKinds(architecture, space)) return findCandidates(architecture, bounds, options, ranking);
  return outlineSubnets(architecture, space, bounds, options);
}

/** The largest candidates within bounds; where layers are of several kinds, those count that the ranking keeps, or else the first ones. */
export function findCandidates(architecture: Architecture, bounds: Bounds, options: FindOptions, ranking?: LayerRanking): SearchResult {
  const space = spaceOf(architecture, options);
  const ranked = ranking && choosesAmongKinds(architecture, space);
  const keptLayers = ranked ? (n: number) => topPositions(ranking.layers(), n) : undefined;
  return searchSubnets(architecture, space, bounds, { ...options, keptLayers });
}

/** The space around a parent. Where heads and hidden channels can only go together, both stay. */
function spaceOf(architecture: Architecture, options: FindOptions): SearchSpace {
  refuseLayered(architecture);
  const { table, hyperparameters } = architecture;
  const held = table.impliedHeadDim ? ["hidden_size", "num_attention_heads"] : [];
  return searchSpace(hyperparameters, { ...options, hparamsToSkip: [...options.hparamsToSkip, ...held] });
}

async function rankingOf(model: ScorableModel, { skip_sorting }: MinitronOptions): Promise<Ranking> {
  return skip_sorting ? rankByPosition(model.architecture) : rankByActivation(model.architecture, await model.scores());
}
