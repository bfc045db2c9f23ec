import type { ScoreFile } from "../checkpoint/scoreFile.js";
import { hashOf } from "../hash.js";
import type { Model } from "../model/model.js";
import type { ScoreFunc } from "../model/runnable.js";
import type { PythonRef } from "../pythonRef.js";
import { identityOf } from "./identity.js";
import type { IdentifiedScoreFunc } from "./negativeLoss.js";

/** What a candidate's score depends on beside its sizes, as a hash: the network, its dtype, what ranked, and the score function. */
export async function contextOf(
  { parent, dtype }: Pick<Model, "parent" | "dtype">,
  scoreFunc: ScoreFunc | IdentifiedScoreFunc | PythonRef,
  measured: ScoreFile | undefined,
): Promise<string> {
  const ranking = measured ? [...measured.accumulators].map(([name, { data }]) => [name, hashOf(data)]) : "position";
  return `sha256:${hashOf(JSON.stringify([parent.fingerprint, dtype, ranking, await identityOf(scoreFunc)]))}`;
}
