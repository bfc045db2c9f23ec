import { z } from "zod";
import { checkScoredCheckpoint, type ScoreFile } from "./checkpoint/scoreFile.js";
import { PruneError } from "./errors.js";
import type { Network } from "./inspect.js";
import { parseConstraints } from "./policy/constraints.js";
import { findCandidates, outlineCandidates } from "./policy/modes/minitron.js";
import { type Ranking, rankByActivation } from "./policy/rank.js";
import type { Bounds } from "./policy/search/bounds.js";
import { divisors, searchConfig } from "./policy/search/options.js";
import type { SearchOutline, SearchResult } from "./policy/search/search.js";

const searchOptions = z.strictObject({
  ...searchConfig,
  ...divisors,
  /** What was measured of the network: decides which layers stay where they are of several kinds. */
  scores: z
    .custom<ScoreFile>((value) => typeof value === "object" && value !== null, "scores must be a score file that was read")
    .optional(),
});

/** Options of {@link search}. */
export type SearchOptions = z.input<typeof searchOptions>;

/**
 * Lists the largest subnets that meet upper bounds on `params`, `active_params`, `memory_mb` (MiB, at 2 bytes a value, with the key-value
 * cache and Mamba's states) and `flops`, each a number or a percentage of the parent's. Closed forms from the family's table: no Python, no
 * weights.
 *
 * @throws PruneError BAD_CONSTRAINTS, which says how near the space comes to a bound that it cannot meet; BAD_OPTION; BAD_SCORES
 */
export function search(parent: Network, constraints: Readonly<Record<string, unknown>>, options: SearchOptions = {}): SearchResult {
  const { bounds, parsed, ranking } = parse(parent, constraints, options);
  return findCandidates(parent.architecture, bounds, parsed, ranking);
}

/**
 * What prune() can tell of its search before it measures: as {@link search}, but without scores it guesses at no layers. Where these are of
 * several kinds, it refuses only bounds that no choice of them meets, and leaves candidates open.
 *
 * @throws PruneError as search() does
 */
export function outlineSearch(parent: Network, constraints: Readonly<Record<string, unknown>>, options: SearchOptions = {}): SearchOutline {
  const { bounds, parsed, ranking } = parse(parent, constraints, options);
  return outlineCandidates(parent.architecture, bounds, parsed, ranking);
}

interface ParsedSearch {
  readonly bounds: Bounds;
  readonly parsed: z.output<typeof searchOptions>;
  readonly ranking: Ranking | undefined;
}

function parse(parent: Network, constraints: Readonly<Record<string, unknown>>, options: SearchOptions): ParsedSearch {
  const parsed = searchOptions.safeParse(options);
  if (!parsed.success) throw new PruneError("BAD_OPTION", `search options: ${z.prettifyError(parsed.error)}`);
  const wanted = parseConstraints(constraints);
  if (wanted.kind !== "bounds") {
    throw new PruneError("BAD_CONSTRAINTS", "a search needs bounds, and export_config states sizes", {
      hint: "plan() takes export_config",
    });
  }
  const { scores } = parsed.data;
  if (scores) checkScoredCheckpoint(scores, parent.fingerprint, "the score file");
  const ranking = scores && rankByActivation(parent.architecture, scores.accumulators);
  return { bounds: wanted.bounds, parsed: parsed.data, ranking };
}
