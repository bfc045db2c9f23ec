import { join } from "node:path";
import { z } from "zod";
import { isFile } from "./checkpoint/folder.js";
import { PLAN_FILE, type PlanFile, writePlanFile } from "./checkpoint/planFile.js";
import { checkScoredCheckpoint, readScoreFile, type ScoreFile, writeScoreFile } from "./checkpoint/scoreFile.js";
import { PruneError } from "./errors.js";
import type { Model } from "./model.js";
import { parseConstraints } from "./policy/constraints.js";
import { planMinitron, type ScorableModel } from "./policy/modes/minitron.js";
import { type MinitronOptions, type ParsedMode, parseModes } from "./policy/modes/modes.js";
import type { Progress } from "./progress.js";
import { score } from "./score.js";
import { type Batch, type Batches, countOf } from "./tensor.js";

/** A mode's name; a list of names or of [name, options] pairs; or an object of options by name. */
export type Mode =
  | string
  | readonly (string | readonly [name: string, options: Record<string, unknown>])[]
  | Readonly<Record<string, Record<string, unknown>>>;

/** Options of {@link prune}. */
export interface PruneConfig {
  /** Calibration batches. Needed unless the checkpoint folder or `scores` has stored scores. */
  readonly dataLoader?: Batches | undefined;
  /** At most this many batches. Default: all. */
  readonly maxIterDataLoader?: number | undefined;
  /** A folder that keeps `scores.safetensors` and `plan.json`: scores that are there are used, and calibration is skipped. */
  readonly checkpoint?: string | undefined;
  /** A score file to use instead of calibrating. */
  readonly scores?: string | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Ends the work at the next batch or tensor boundary. */
  readonly signal?: AbortSignal | undefined;
}

/** What {@link prune} gives: the model it was given, now pruned, and how that came about. */
export interface PruneResult {
  /** The same handle as the model. */
  readonly subnet: Model;
  readonly stateDict: {
    /** What was kept of every dimension, and what it comes to. */
    readonly plan: PlanFile;
    /** The raw accumulators; undefined where nothing had to be ranked. */
    readonly scores: ScoreFile | undefined;
  };
}

const SCORES_FILE = "scores.safetensors";

const pruneConfig = z.strictObject({
  dataLoader: z
    .custom<Batches>(
      (value) => typeof value === "object" && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value),
      "dataLoader must be an iterable or async iterable of batches",
    )
    .optional(),
  maxIterDataLoader: z.number().int().positive().optional(),
  checkpoint: z.string().min(1).optional(),
  scores: z.string().min(1).optional(),
  onProgress: z.custom<(progress: Progress) => void>((value) => typeof value === "function", "onProgress must be a function").optional(),
  signal: z.instanceof(AbortSignal).optional(),
});

/**
 * Prunes a model in place, as NVIDIA ModelOpt's `prune` does.
 *
 * @param model - an opened model; it is changed
 * @param mode - `"mcore_gpt_minitron"`, alone or with options
 * @param constraints - `{ export_config: {...} }`: sizes to keep, by Megatron's names
 * @param dummyInput - for modes that trace the model; Minitron does not look at it
 * @param config - calibration data and where to keep what is found
 * @throws PruneError BAD_MODE, BAD_CONSTRAINTS, BAD_EXPORT_CONFIG or BAD_OPTION before any work; then what calibration and cutting throw
 */
export async function prune(
  model: Model,
  mode: Mode,
  constraints: unknown,
  dummyInput: unknown,
  config: PruneConfig = {},
): Promise<PruneResult> {
  const { options } = onlyMode(parseModes(mode));
  const { exportConfig } = parseConstraints(constraints);
  const checked = parseConfig(config);
  model.checkUnpruned();
  void dummyInput;
  return runMinitron(model, exportConfig, options, checked);
}

async function runMinitron(model: Model, exportConfig: unknown, options: MinitronOptions, config: PruneConfig): Promise<PruneResult> {
  let scores: ScoreFile | undefined;
  const target: ScorableModel = {
    architecture: model.parent.architecture,
    config: model.parent.checkpoint.config,
    scores: async () => {
      scores = await obtainScores(model, config);
      return scores.accumulators;
    },
  };
  const plan: PlanFile = { ...(await planMinitron(target, exportConfig, options)), fingerprint: model.parent.fingerprint ?? null };
  model.prune(plan);
  if (config.checkpoint !== undefined) await writePlanFile(join(config.checkpoint, PLAN_FILE), plan);
  return { subnet: model, stateDict: { plan, scores } };
}

async function obtainScores(model: Model, config: PruneConfig): Promise<ScoreFile> {
  const kept = config.checkpoint === undefined ? undefined : join(config.checkpoint, SCORES_FILE);
  const stored = config.scores ?? (kept !== undefined && (await isFile(kept)) ? kept : undefined);
  if (stored !== undefined) {
    const scores = await readScoreFile(stored);
    checkScoredCheckpoint(scores, model.parent.fingerprint, stored);
    return scores;
  }
  if (!config.dataLoader) {
    throw new PruneError("BAD_OPTION", "there are no stored scores and no dataLoader to calibrate with", {
      hint: 'give dataLoader: textBatches("calibration.jsonl", model), or the path of a score file as scores',
    });
  }
  const scores = await score(model, model.parent, limit(config.dataLoader, config.maxIterDataLoader), config);
  if (kept !== undefined) await writeScoreFile(kept, scores);
  return scores;
}

function limit(batches: Batches, most = Number.POSITIVE_INFINITY): Batches {
  return {
    get size() {
      const count = countOf(batches);
      return count === undefined ? undefined : Math.min(count, most);
    },
    async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
      let drawn = 0;
      for await (const batch of batches) {
        yield batch;
        drawn += 1;
        if (drawn >= most) return;
      }
    },
  };
}

function onlyMode(modes: readonly ParsedMode[]): ParsedMode {
  const [first, ...others] = modes;
  if (first && others.length === 0) return first;
  throw new PruneError("BAD_MODE", "an export_config is met by one mode alone", { hint: 'give "mcore_gpt_minitron" once' });
}

function parseConfig(config: PruneConfig): PruneConfig {
  const parsed = pruneConfig.safeParse(config);
  if (parsed.success) return parsed.data;
  throw new PruneError(
    "BAD_OPTION",
    `config: ${parsed.error.issues.map(({ path, message }) => [path.join("."), message].filter(Boolean).join(": ")).join("; ")}`,
    {
      hint: `known options: ${Object.keys(pruneConfig.shape).join(", ")}`,
    },
  );
}
