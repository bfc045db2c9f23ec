import { z } from "zod";
import { PruneError } from "./errors.js";
import type { Parent } from "./inspect.js";
import { suggestName } from "./policy/nearest.js";
import { parseBounds } from "./policy/search/bounds.js";
import { METRICS } from "./policy/search/metrics.js";
import { type Candidate, type SearchResult, searchSubnets } from "./policy/search/search.js";
import { SPACE_DEFAULTS, searchSpace } from "./policy/search/space.js";

const positive = z.number().int().positive();
const searchOptions = z.strictObject({
  /** Candidates to give. */
  top_k: positive.default(10),
  /** Tokens of a sequence, for `memory_mb` and `flops`. */
  seq_length: positive.default(4096),
  /** Sequences of a batch, for `memory_mb` and `flops`. */
  batch_size: positive.default(1),
  hidden_size_divisor: positive.default(SPACE_DEFAULTS.hidden_size_divisor),
  ffn_hidden_size_divisor: positive.default(SPACE_DEFAULTS.ffn_hidden_size_divisor),
  mamba_head_dim_divisor: positive.default(SPACE_DEFAULTS.mamba_head_dim_divisor),
  num_moe_experts_divisor: positive.default(SPACE_DEFAULTS.num_moe_experts_divisor),
  num_layers_divisor: positive.default(SPACE_DEFAULTS.num_layers_divisor),
  max_width_pruning: z.number().default(SPACE_DEFAULTS.max_width_pruning),
  max_depth_pruning: z.number().default(SPACE_DEFAULTS.max_depth_pruning),
  hparams_to_skip: z.array(z.string()).default([]),
  /** Leaves out a candidate where it returns false. */
  candidate_filter: z
    .custom<(candidate: Candidate) => boolean>((value) => typeof value === "function", "candidate_filter must be a function")
    .optional(),
});

/** Options of {@link search}, under the reference's names. */
export type SearchOptions = z.input<typeof searchOptions>;

/**
 * Lists the largest subnets that meet upper bounds on `params`, `active_params`, `memory_mb` (MiB, at 2 bytes a value, with the key-value
 * cache) and `flops`, each a number or a percentage of the parent's. Closed forms from the family's table: no Python, no weights.
 *
 * @throws PruneError BAD_CONSTRAINTS, which says how near the space comes to a bound that it cannot meet; BAD_OPTION
 */
export function search(parent: Parent, constraints: Readonly<Record<string, unknown>>, options: SearchOptions = {}): SearchResult {
  const parsed = searchOptions.safeParse(options);
  if (!parsed.success) throw new PruneError("BAD_OPTION", `search options: ${z.prettifyError(parsed.error)}`);
  const unknown = Object.keys(constraints).find((name) => !METRICS.some((metric) => metric === name));
  if (unknown !== undefined) throw new PruneError("BAD_CONSTRAINTS", `unknown metric ${unknown}`, { hint: suggestName(unknown, METRICS) });
  const { top_k: topK, seq_length: seqLength, batch_size: batchSize, candidate_filter: candidateFilter, ...space } = parsed.data;
  const { architecture } = parent;
  return searchSubnets(architecture, searchSpace(architecture.hyperparameters, space), parseBounds(constraints), {
    topK,
    seqLength,
    batchSize,
    candidateFilter,
  });
}
