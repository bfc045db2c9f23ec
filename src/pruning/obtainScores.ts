import { checkScoredCheckpoint, readScoreFile, type ScoreFile } from "../checkpoint/scoreFile.js";
import { type CalibrationOptions, ScoreStore } from "../checkpoint/scoreStore.js";
import { PruneError } from "../errors.js";
import { hashOf } from "../hash.js";
import type { Model } from "../model/model.js";
import type { CollectSource } from "../model/runnable.js";
import { score } from "../score.js";
import type { Batches } from "../tensor.js";
import { calibrate } from "./calibrate.js";
import type { CheckedConfig } from "./config.js";
import { identityOf } from "./identity.js";

/**
 * The scores that rank a model: those of a named file, those that a checkpoint folder holds, or what a calibration measures now.
 *
 * @throws PruneError BAD_OPTION where there is none of these, BAD_SCORES or CHECKPOINT_MISMATCH where stored scores are of something else
 */
export async function obtainScores(model: Model, options: CheckedConfig): Promise<ScoreFile> {
  const { fingerprint } = model.parent;
  if (options.scores !== undefined) {
    const scores = await readScoreFile(options.scores);
    checkScoredCheckpoint(scores, fingerprint, options.scores);
    return scores;
  }
  const { source, checkpoint, checkpointEvery } = options;
  if (checkpoint === undefined) {
    if (source === undefined) throw nothingToRankBy();
    return score(model, model.parent, source, options);
  }
  const store = new ScoreStore(checkpoint, fingerprint, await calibrationOptions(model, options));
  if (source !== undefined && isBatches(source)) return calibrate(model, model.parent, source, { ...options, store, checkpointEvery });
  const stored = await store.read();
  if (stored) return stored;
  if (source === undefined) throw nothingToRankBy();
  // A loop brings its own batches: it is run as a whole, or not at all.
  return store.write(await score(model, model.parent, source, options));
}

function isBatches(source: CollectSource): source is Batches {
  return typeof source === "object" && !("forwardLoop" in source) && !("dataLoader" in source);
}

/** What stored scores must have been measured with, as far as it can be told without running anything. */
async function calibrationOptions({ dtype }: Model, { source, checkpointEvery }: CheckedConfig): Promise<CalibrationOptions> {
  if (source === undefined) return { dtype };
  if (isBatches(source)) return { source: "batches", dtype, checkpointEvery: String(checkpointEvery) };
  if (typeof source === "function") return { source: `forward loop ${hashOf(await identityOf(source))}`, dtype };
  return { source: `python ${JSON.stringify(source)}`, dtype };
}

function nothingToRankBy(): PruneError {
  return new PruneError("BAD_OPTION", "there are no stored scores and no dataLoader or forwardLoop to calibrate with", {
    hint: 'give dataLoader: textBatches("calibration.jsonl", model), or the path of a score file as scores',
  });
}
