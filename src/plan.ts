import { MAX_POSITIONS, type PlanFile, readPlanFile } from "./checkpoint/planFile.js";
import { checkScoredCheckpoint, type ScoreFile } from "./checkpoint/scoreFile.js";
import { PruneError } from "./errors.js";
import type { Parent } from "./inspect.js";
import { checkPlan } from "./policy/checkPlan.js";
import { countRanked } from "./policy/hyperparameters.js";
import { makePlan, outlinePlan, type PlanOutline } from "./policy/plan.js";
import { rankByActivation, rankByPosition } from "./policy/rank.js";

/** What to rank by: measured importance, or position for parents that are sorted already. */
export type RankBy = { readonly scores: ScoreFile; readonly path: string } | "position";

/** Counts what a target comes to, without scores. Throws BAD_EXPORT_CONFIG. */
export function outline(parent: Parent, exportConfig: unknown): PlanOutline {
  return outlinePlan(parent.architecture, parent.checkpoint.config, exportConfig);
}

/** Decides what a child keeps. Throws BAD_EXPORT_CONFIG, BAD_SCORES, or BAD_CONFIG on a network larger than any. */
export function plan(parent: Parent, exportConfig: unknown, rankBy: RankBy): PlanFile {
  const { architecture, checkpoint, fingerprint } = parent;
  const ranked = countRanked(architecture.sizes);
  if (ranked > MAX_POSITIONS) {
    throw new PruneError(
      "BAD_CONFIG",
      `${checkpoint.configPath} makes ${ranked} positions to rank, more than the ${MAX_POSITIONS} of a plan`,
    );
  }
  if (rankBy !== "position") checkScoredCheckpoint(rankBy.scores, fingerprint, rankBy.path);
  const ranking = rankBy === "position" ? rankByPosition(architecture) : rankByActivation(architecture, rankBy.scores.accumulators);
  return { ...makePlan(architecture, checkpoint.config, exportConfig, ranking), fingerprint: fingerprint ?? null };
}

/** Reads a plan and checks that it is one for this parent. Throws BAD_PLAN. */
export async function readPlanFor(parent: Parent, path: string): Promise<PlanFile> {
  const read = await readPlanFile(path);
  if (read.fingerprint !== null && parent.fingerprint !== undefined && read.fingerprint !== parent.fingerprint) {
    throw new PruneError("BAD_PLAN", `${path} was made for another checkpoint (${read.fingerprint}, not ${parent.fingerprint})`, {
      hint: "plan again for this one",
    });
  }
  checkPlan(parent.architecture, parent.checkpoint.config, read, path);
  return read;
}
