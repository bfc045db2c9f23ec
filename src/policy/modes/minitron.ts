import type { Architecture, ModelConfig } from "../architecture.js";
import { makePlan, outlinePlan, type Plan } from "../plan.js";
import { rankByActivation, rankByPosition } from "../rank.js";
import type { Accumulators } from "../scores.js";
import type { MinitronOptions } from "./modes.js";

/** What the mode needs of a model: what it is, and what was measured of it. */
export interface ScorableModel {
  readonly architecture: Architecture;
  readonly config: ModelConfig;
  /** Measures every hook point, or gives what was measured before. */
  scores(): Promise<Accumulators>;
}

/**
 * Decides how to prune a decoder to an export_config: ranks every dimension by activation and keeps the best.
 *
 * @throws PruneError BAD_EXPORT_CONFIG before anything is measured
 */
export async function planMinitron(model: ScorableModel, exportConfig: unknown, options: MinitronOptions): Promise<Plan> {
  const { architecture, config } = model;
  outlinePlan(architecture, config, exportConfig);
  const ranking = options.skip_sorting ? rankByPosition(architecture) : rankByActivation(architecture, await model.scores());
  return makePlan(architecture, config, exportConfig, ranking);
}
