import { z } from "zod";
import type { Candidate } from "./search.js";
import { SPACE_DEFAULTS } from "./space.js";

const positive = z.number().int().positive();
const share = z.number().min(0).lt(1, "must be a share from 0 to below 1");

/** Steps of the searched hyperparameters: options of the mode, under the reference's names. */
export const divisors = {
  hidden_size_divisor: positive.default(SPACE_DEFAULTS.hidden_size_divisor),
  ffn_hidden_size_divisor: positive.default(SPACE_DEFAULTS.ffn_hidden_size_divisor),
  mamba_head_dim_divisor: positive.default(SPACE_DEFAULTS.mamba_head_dim_divisor),
  num_moe_experts_divisor: positive.default(SPACE_DEFAULTS.num_moe_experts_divisor),
  num_layers_divisor: positive.default(SPACE_DEFAULTS.num_layers_divisor),
};

/** How a search under bounds goes about it. */
export const searchConfig = {
  /** Candidates that are scored, the largest first. Default 10. */
  topK: positive.default(10),
  /** The largest share of a width that may go. Default 0.4. */
  maxWidthPruning: share.default(SPACE_DEFAULTS.maxWidthPruning),
  /** The largest share of the layers that may go. Default 0.2. */
  maxDepthPruning: share.default(SPACE_DEFAULTS.maxDepthPruning),
  /** Hyperparameters that keep the parent's size. */
  hparamsToSkip: z.array(z.string()).default([]),
  /** Leaves out a candidate where it returns false. */
  candidateFilter: z
    .custom<(candidate: Candidate) => boolean>((value) => typeof value === "function", "candidateFilter must be a function")
    .optional(),
  /** Tokens of a sequence, for `memory_mb` and, without a dummy input, for `flops`. Default 4096. */
  seqLength: positive.default(4096),
  /** Sequences of a batch, for the same. Default 1. */
  batchSize: positive.default(1),
};

const divisorOptions = z.strictObject(divisors);
const searchOptions = z.strictObject(searchConfig);

/** Steps of the searched hyperparameters. */
export type Divisors = z.output<typeof divisorOptions>;

/** {@link searchConfig} with every default filled in. */
export type SearchConfig = z.output<typeof searchOptions>;
