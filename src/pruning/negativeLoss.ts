import { BATCH_DEFAULTS, type Tokenizer, textBatches } from "../data/batches.js";
import type { BatchShape } from "../data/pack.js";
import type { ScoreFunc } from "../model/runnable.js";
import { hashOfBatches } from "./hashedBatches.js";
import type { Identified } from "./identity.js";

/** A score function that says what it is. */
export type IdentifiedScoreFunc = ScoreFunc & Identified;

/**
 * The built-in score function: the negative of the loss on held-out data, in nats per token.
 *
 * @param path - a data file as {@link textBatches} takes it
 * @param model - what tokenizes text: the model that is pruned
 */
export function negativeLoss(
  path: string,
  model: Tokenizer & { readonly hyperparameters: { readonly vocab_size: number } },
  options: Partial<BatchShape> = {},
): IdentifiedScoreFunc {
  const shape = { ...BATCH_DEFAULTS, ...options };
  // Read and tokenized once for all candidates.
  const batches = textBatches(path, model, shape);
  const score: ScoreFunc = async (candidate) => -(await candidate.loss(batches));
  const identify = async (): Promise<string> => `negative loss on ${await hashOfBatches(batches)}`;
  return Object.assign(score, { identify });
}
