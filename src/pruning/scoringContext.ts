import { randomUUID } from "node:crypto";
import type { ScoreFile } from "../checkpoint/scoreFile.js";
import { hashOf } from "../hash.js";
import type { Model } from "../model/model.js";
import type { ScoreFunc } from "../model/runnable.js";
import { isPythonRef, type PythonRef } from "../pythonRef.js";
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

async function identityOf(scoreFunc: ScoreFunc | IdentifiedScoreFunc | PythonRef): Promise<string> {
  if (isPythonRef(scoreFunc)) return scoreFunc.name;
  if ("identify" in scoreFunc) return scoreFunc.identify();
  const text = String(scoreFunc);
  // The text of a bound function tells nothing: it is taken for another one in each run.
  return text.includes("[native code]") ? randomUUID() : text;
}
