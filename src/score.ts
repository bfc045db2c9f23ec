import type { ScoreFile } from "./checkpoint/scoreFile.js";
import { PruneError } from "./errors.js";
import type { Network } from "./inspect.js";
import type { CollectSource } from "./model/runnable.js";
import { type Accumulators, arrangeScores, type HookPoint, hookPoints } from "./policy/scores.js";
import type { RunOptions } from "./progress.js";

/** What can run a model and measure at hook points: a model that a shim holds, or a stand-in. */
export interface Collector {
  collect(hooks: readonly HookPoint[], source: CollectSource, options?: RunOptions): Promise<Collection>;
}

/** Raw accumulators, and what they were summed over. */
export interface Collection {
  readonly accumulators: Accumulators;
  readonly batches: number;
  readonly samples: number;
  readonly tokens: number;
  /** Wall seconds within forward passes. */
  readonly forwardSeconds: number;
}

/**
 * Measures every importance of a model over calibration batches, in one pass.
 *
 * @param source - batches, a loop that runs the model, or Python functions by name
 *
 * @throws PruneError BAD_SCORES where an accumulator is not finite, and what the collector throws
 */
export async function score(collector: Collector, parent: Network, source: CollectSource, options: RunOptions = {}): Promise<ScoreFile> {
  const collected = await collector.collect(hookPoints(parent.architecture), source, options);
  const accumulators = arrangeScores(parent.architecture, collected.accumulators);
  for (const [name, { data }] of accumulators) {
    if (data.every(Number.isFinite)) continue;
    throw new PruneError("BAD_SCORES", `calibration gave importances at ${name} that are not finite`, {
      hint: "the forward pass overflowed: calibrate in bfloat16 or float32, and look for NaN in the weights",
    });
  }
  return {
    accumulators,
    fingerprint: parent.fingerprint,
    provenance: { batches: String(collected.batches), samples: String(collected.samples), tokens: String(collected.tokens) },
  };
}
