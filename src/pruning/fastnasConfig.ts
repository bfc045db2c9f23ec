import { z } from "zod";
import type { ForwardArgs } from "../data/args.js";
import { toNetworkBatch } from "../data/networkArgs.js";
import { PruneError } from "../errors.js";
import type { NetworkLoop, NetworkScoreFunc } from "../model/runnableNetwork.js";
import type { RunOptions } from "../progress.js";
import type { PythonRef } from "../pythonRef.js";
import { type BatchSource, batchSource, type CalibrationOptions } from "./calibration.js";
import { badConfig, type CommonConfig, callable, commonConfig } from "./commonConfig.js";

/** Batches that normalisation layers are calibrated over, where nothing else is said. */
const NORM_BATCHES = 50;

/**
 * Options of {@link prune} in the mode `fastnas`. A `dataLoader` or a `forwardLoop` calibrates normalisation statistics; without, they stay
 * as they are. At most 50 batches of a `dataLoader` are drawn where `maxIterDataLoader` says nothing.
 *
 * @typeParam Item - what the data loader gives: arguments of forward, or what `collectFunc` makes them of
 */
export interface FastnasConfig<Item = ForwardArgs> extends CalibrationOptions<Item, NetworkLoop>, RunOptions {
  /**
   * Judges candidates, higher = better. A checkpoint folder knows a function by its name in Python, or by its text: where it draws on data
   * that may change, give it a method `identify` that tells of these.
   */
  readonly scoreFunc: NetworkScoreFunc | PythonRef;
  /**
   * A folder that keeps the sensitivities, written after each hyperparameter: a run that was killed goes on with the first one that is not
   * there, and another constraint scores nothing. What it knows data and functions by is as in other modes.
   */
  readonly checkpoint?: string | undefined;
  /** Tells of the search space, its smallest, middle and original network, and each score: on stderr, or to a function. Default false. */
  readonly verbose?: CommonConfig["verbose"];
}

const fastnasConfig = z.strictObject({
  ...commonConfig,
  forwardLoop: callable<NetworkLoop>().optional(),
  scoreFunc: callable<NetworkScoreFunc>().optional(),
});

/** The options, and what calibrates as one source where anything does. */
export type CheckedFastnas = Omit<z.output<typeof fastnasConfig>, "scoreFunc"> & {
  readonly scoreFunc: NetworkScoreFunc | PythonRef;
  readonly source: BatchSource<NetworkLoop> | undefined;
};

/** Checks the options of the mode `fastnas`. Throws BAD_OPTION on one that is missing, unknown or malformed, or that excludes another. */
export function parseFastnasConfig(config: object): CheckedFastnas {
  const parsed = fastnasConfig.safeParse(config);
  if (!parsed.success) throw badConfig(parsed.error, fastnasConfig);
  const { scoreFunc, maxIterDataLoader, ...options } = parsed.data;
  if (scoreFunc === undefined) {
    throw new PruneError("BAD_OPTION", "config: fastnas needs a scoreFunc, which tells what each size of a layer costs", {
      hint: 'give a function of the network that returns a number, higher = better; or python("module:function")',
    });
  }
  const maxBatches = maxIterDataLoader ?? (options.dataLoader === undefined ? undefined : NORM_BATCHES);
  const source = batchSource({ ...options, maxIterDataLoader: maxBatches }, toNetworkBatch);
  return { ...options, scoreFunc, maxIterDataLoader, source };
}
