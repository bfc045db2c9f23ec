import { z } from "zod";
import type { ForwardArgs } from "../data/args.js";
import type { CollectFunc, DataSource } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import { BUILT_IN_LOSSES, type GradientLoss } from "../model/gradients.js";
import type { RunOptions } from "../progress.js";
import { isPythonRef, type PythonRef } from "../pythonRef.js";
import { sidesDiffer } from "./calibration.js";
import { badConfig, type CommonConfig, commonConfig } from "./commonConfig.js";
import { refuseStepsWithoutFolder } from "./config.js";

/** Batches that gradients are summed over, where nothing else is said. */
const BATCHES = 128;

/**
 * Options of {@link prune} in the mode `gradnas`.
 *
 * @typeParam Item - what the data loader gives: arguments of forward, or what `collectFunc` makes them of
 */
export interface GradnasConfig<Item = ForwardArgs> extends RunOptions {
  /**
   * What gradients are of: `"causal_lm"`, `"masked_lm"`, `"sequence_classification"` or `"mse"`, by the `labels` of batches; a Python function
   * of what forward returns and the batch; or a function here of the output and what the data loader gave, which returns the loss and its
   * gradient by the output, as {@link crossEntropy} does. A checkpoint folder knows a function as it knows score functions.
   */
  readonly lossFunc: GradientLoss<Item>;
  /** Batches, here or in the shim. They may hold `labels` beside arguments of forward. */
  readonly dataLoader: DataSource<Item> | PythonRef;
  /** Makes the arguments of forward of a batch, on the side of the `dataLoader`. Default: the batch is the arguments. */
  readonly collectFunc?: CollectFunc<Item> | PythonRef | undefined;
  /** At most this many batches are drawn. Default 128. */
  readonly maxIterDataLoader?: number | undefined;
  /** A folder that keeps what was summed, and the plan. A run that was killed goes on, and another constraint runs nothing. */
  readonly checkpoint?: string | undefined;
  /** Batches between two writes to the checkpoint folder. Default 32. */
  readonly checkpointEvery?: number | undefined;
  /** Tells of the search space, its smallest, middle and original network, and what was chosen: on stderr, or to a function. Default false. */
  readonly verbose?: CommonConfig["verbose"];
}

const gradnasConfig = z.strictObject({
  ...commonConfig,
  lossFunc: z
    .custom<GradientLoss<never>>(
      (value) => typeof value === "function" || isPythonRef(value) || BUILT_IN_LOSSES.some((name) => name === value),
      `must be a function, python(...), or one of ${BUILT_IN_LOSSES.join(", ")}`,
    )
    .optional(),
  maxIterDataLoader: z.number().int().positive().default(BATCHES),
  checkpointEvery: z.number().int().positive().default(32),
});

/** The options with every default filled in. */
export type CheckedGradnas = z.output<typeof gradnasConfig> & {
  readonly lossFunc: GradientLoss<never>;
  readonly dataLoader: DataSource<never> | PythonRef;
};

const NEVER_CALLED = {
  scoreFunc: "candidates are judged by gradients, and nothing is run to judge them",
  forwardLoop: "gradients are taken of each batch's loss, and a loop tells none",
};

/** Checks the options of the mode `gradnas`. Throws BAD_OPTION on one that is missing, unknown or malformed, or that excludes another. */
export function parseGradnasConfig(config: object): CheckedGradnas {
  for (const [name, why] of Object.entries(NEVER_CALLED)) {
    if (name in config && config[name as keyof object] !== undefined)
      throw new PruneError("BAD_OPTION", `config: gradnas has no ${name}: ${why}`, {
        hint: "leave it out; lossFunc and dataLoader say what counts",
      });
  }
  const parsed = gradnasConfig.safeParse(config);
  if (!parsed.success) throw badConfig(parsed.error, gradnasConfig);
  if (parsed.data.checkpoint === undefined) refuseStepsWithoutFolder(config);
  const { lossFunc, dataLoader, collectFunc } = parsed.data;
  if (lossFunc === undefined) {
    throw new PruneError("BAD_OPTION", "config: gradnas needs a lossFunc, whose gradients tell what a unit is worth", {
      hint: 'give "causal_lm" or "masked_lm", for one; a function that returns { loss, gradient }; or python("module:function")',
    });
  }
  if (dataLoader === undefined) {
    throw new PruneError("BAD_OPTION", "config: gradnas needs a dataLoader, over whose batches gradients are summed", {
      hint: "give an iterable of batches, or python(...)",
    });
  }
  checkSides(lossFunc, dataLoader, collectFunc);
  return { ...parsed.data, lossFunc, dataLoader };
}

/** Batches do not travel: what is called with them stands on the side of the loader, and a loss in Python may be of batches from here. */
function checkSides(lossFunc: unknown, dataLoader: unknown, collectFunc: unknown): void {
  if (!isPythonRef(dataLoader)) {
    if (isPythonRef(collectFunc)) throw sidesDiffer("collectFunc", "dataLoader");
    return;
  }
  const here = Object.entries({ lossFunc, collectFunc }).find(([, value]) => typeof value === "function");
  if (here) throw sidesDiffer("dataLoader", here[0]);
}
