import { z } from "zod";
import type { ForwardArgs } from "../data/args.js";
import { PruneError } from "../errors.js";
import type { CollectSource, ForwardLoop, ScoreFunc } from "../model/runnable.js";
import { searchConfig } from "../policy/search/options.js";
import type { Candidate } from "../policy/search/search.js";
import type { RunOptions } from "../progress.js";
import type { PythonRef } from "../pythonRef.js";
import { type CalibrationOptions, calibrationSource } from "./calibration.js";
import { badConfig, type CommonConfig, callable, commonConfig } from "./commonConfig.js";

/**
 * Options of {@link prune}. What calibrates is a `dataLoader` or a `forwardLoop`; neither is needed where scores are stored.
 *
 * @typeParam Item - what the data loader gives: arguments of forward, or what `collectFunc` makes them of
 */
export interface PruneConfig<Item = ForwardArgs> extends CalibrationOptions<Item>, RunOptions {
  /**
   * Judges candidates under bounds, higher = better. Default: none, and the largest candidate is taken. A checkpoint folder knows a function
   * by its name in Python, or by its text: where it draws on data that may change, have its `identify` tell, as {@link negativeLoss} does.
   */
  readonly scoreFunc?: ScoreFunc | PythonRef | undefined;
  /**
   * A folder that keeps scores, scored candidates and the plan, each as soon as it is known. What is there is used: a run that was killed
   * goes on, and another constraint needs no second calibration.
   * Data loaders are known by their batches; a forward loop and a score function by their text or name, or by what a method `identify` of
   * theirs says: what they close over is not seen.
   */
  readonly checkpoint?: string | undefined;
  /** Calibration batches between two writes to the checkpoint folder. Default 32. */
  readonly checkpointEvery?: number | undefined;
  /** A score file to use instead of calibrating. Excludes what calibrates. */
  readonly scores?: string | undefined;
  /** Candidates to score, the largest first. Default 10. */
  readonly topK?: number | undefined;
  /** The largest share of a width that a search may take away. Default 0.4. */
  readonly maxWidthPruning?: number | undefined;
  /** The largest share of the layers that a search may take away. Default 0.2. */
  readonly maxDepthPruning?: number | undefined;
  /** Hyperparameters that a search leaves as they are. */
  readonly hparamsToSkip?: readonly string[] | undefined;
  /** Leaves out a candidate where it returns false. */
  readonly candidateFilter?: ((candidate: Candidate) => boolean) | undefined;
  /** Tokens of a sequence, for `memory_mb` and, without a dummy input, for `flops`. Default 4096. */
  readonly seqLength?: number | undefined;
  /** Sequences of a batch, for the same. Default 1. */
  readonly batchSize?: number | undefined;
  /**
   * Tells of the search space, the constraints and each candidate, or, of given sizes, what they come to: on stderr, or to a function.
   * Default false.
   */
  readonly verbose?: CommonConfig["verbose"];
}

const pruneConfig = z.strictObject({
  ...searchConfig,
  ...commonConfig,
  forwardLoop: callable<ForwardLoop>().optional(),
  scoreFunc: callable<ScoreFunc>().optional(),
  checkpointEvery: z.number().int().positive().default(32),
  scores: z.string().min(1).optional(),
});

/** The options with every default filled in, and what calibrates as one source: none where scores must be stored. */
export type CheckedConfig = z.output<typeof pruneConfig> & { readonly source: CollectSource | undefined };

/** What a search uses, and nothing else does. */
const SEARCH_ONLY = ["scoreFunc", "candidateFilter", "topK", "hparamsToSkip", "maxWidthPruning", "maxDepthPruning"] as const;

/** Checks the options of prune(). Throws BAD_OPTION on one that is unknown or malformed, that excludes another, or that needs another. */
export function parseConfig(config: object): CheckedConfig {
  const parsed = pruneConfig.safeParse(config);
  if (!parsed.success) throw badConfig(parsed.error, pruneConfig);
  if (parsed.data.checkpoint === undefined) refuseStepsWithoutFolder(config);
  return withSource(parsed.data);
}

/** Refuses options, as they were given, that pruning to given sizes would ignore. Throws BAD_OPTION. */
export function refuseSearchOptions(config: Pick<PruneConfig, (typeof SEARCH_ONLY)[number]>): void {
  const given = SEARCH_ONLY.filter((name) => config[name] !== undefined);
  if (given.length === 0) return;
  throw new PruneError(
    "BAD_OPTION",
    `config: export_config states the sizes, and a search under bounds alone uses ${given.join(" and ")}`,
    {
      hint: 'leave one or the other out; a bound is {"params": "60%"} for one',
    },
  );
}

/** Refuses steps that nothing keeps. Takes the options as they were given: parsed, every run has steps. Throws BAD_OPTION. */
export function refuseStepsWithoutFolder({ checkpointEvery }: { readonly checkpointEvery?: unknown }): void {
  if (checkpointEvery === undefined) return;
  throw new PruneError("BAD_OPTION", "config: checkpointEvery without a checkpoint", {
    hint: "name the folder that is written to as checkpoint",
  });
}

function withSource(config: z.output<typeof pruneConfig>): CheckedConfig {
  const source = calibrationSource(config);
  if (config.scores === undefined || source === undefined) return { ...config, source };
  throw new PruneError("BAD_OPTION", "config: scores excludes dataLoader and forwardLoop: a score file was measured already", {
    hint: "give one or the other",
  });
}
