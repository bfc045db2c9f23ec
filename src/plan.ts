import { MAX_POSITIONS, type PlanFile, readPlanFile } from "./checkpoint/planFile.js";
import { checkScoredCheckpoint, type ScoreFile } from "./checkpoint/scoreFile.js";
import { PruneError } from "./errors.js";
import type { Network, Parent } from "./inspect.js";
import { checkPlan } from "./policy/checkPlan.js";
import { countRanked } from "./policy/hyperparameters.js";
import { makePlan, outlinePlan, type PlanOutline } from "./policy/plan.js";
import { rankByActivation, rankByPosition } from "./policy/rank.js";
import { sliceTensors } from "./policy/slices.js";

/** What to rank by: measured importance, or position for parents that are sorted already. */
export type RankBy = { readonly scores: ScoreFile; readonly path: string } | "position";

/** Counts what a target comes to, without scores. Throws BAD_EXPORT_CONFIG. */
export function outline(parent: Network, exportConfig: unknown): PlanOutline {
  return outlinePlan(parent.architecture, parent.checkpoint.config, exportConfig);
}

/**
 * Decides what a child keeps.
 *
 * @throws PruneError BAD_EXPORT_CONFIG, BAD_SCORES, UNSUPPORTED_QUANTIZATION as {@link checkBlocks} does, or BAD_CONFIG on a network larger
 *   than any
 */
export function plan(parent: Network, exportConfig: unknown, rankBy: RankBy): PlanFile {
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
  const made = makePlan(architecture, checkpoint.config, exportConfig, ranking);
  checkBlocks(parent, made);
  return { ...made, fingerprint: fingerprint ?? null };
}

/** Refuses a plan that keeps blocks of quantised weights in part. A bare config.json has no weights to tell. Throws UNSUPPORTED_QUANTIZATION. */
export function checkBlocks({ architecture, matched }: Network, { kept }: Pick<PlanFile, "kept">): void {
  const inBlocks = matched?.tensors.filter(({ row }) => row.axes.some(({ kind }) => kind === "blocks")) ?? [];
  sliceTensors(architecture, kept, inBlocks);
}

/** Reads a plan and checks that it is one for this parent. Throws BAD_PLAN or UNSUPPORTED_QUANTIZATION. */
export async function readPlanFor(parent: Parent, path: string): Promise<PlanFile> {
  const read = await readPlanFile(path);
  if (read.fingerprint !== null && parent.fingerprint !== undefined && read.fingerprint !== parent.fingerprint) {
    throw new PruneError("BAD_PLAN", `${path} was made for another checkpoint (${read.fingerprint}, not ${parent.fingerprint})`, {
      hint: "plan again for this one",
    });
  }
  checkPlan(parent.architecture, parent.checkpoint.config, read, path);
  checkBlocks(parent, read);
  return read;
}
