import type { Architecture, ModelConfig } from "../architecture.js";
import { makePlan, outlinePlan, type Plan } from "../plan.js";
import { rankByActivation, rankByPosition } from "../rank.js";
import type { Accumulators } from "../scores.js";
import type { MinitronOptions } from "./modes.js";

/** The model that a mode works on: what it needs to know, and the two things it has done. */
export interface PrunableModel {
  readonly architecture: Architecture;
  readonly config: ModelConfig;
  /** Measures every hook point, or gives what was measured before. */
  scores(): Promise<Accumulators>;
  /** Makes the model its child. */
  cut(plan: Plan): Promise<void>;
}

/**
 * Prunes a decoder to an export_config: ranks every dimension by activation, keeps the best, cuts.
 *
 * @throws PruneError BAD_EXPORT_CONFIG before anything is measured
 */
export async function pruneMinitron(model: PrunableModel, exportConfig: unknown, options: MinitronOptions): Promise<Plan> {
  const { architecture, config } = model;
  outlinePlan(architecture, exportConfig);
  const ranking = options.skip_sorting ? rankByPosition(architecture) : rankByActivation(architecture, await model.scores());
  const plan = makePlan(architecture, config, exportConfig, ranking);
  await model.cut(plan);
  return plan;
}
