import { PruneError } from "../errors.js";
import type { Collected } from "../gen/prunebridge/v1/work.js";
import type { HookPoint } from "../policy/scores.js";
import type { RunOptions } from "../progress.js";
import type { Batch, Batches, Tensor } from "../tensor.js";
import type { ShimSession } from "./session.js";
import { feedOf, type IndexSets, indexSetFeed, resultOf, type StoredSlice, toWireHook, toWireSlice } from "./wire.js";

/** Loads a checkpoint folder; gives the id that the shim knows it by. */
export async function openModel(
  session: ShimSession,
  value: { path: string; device: string; dtype: string },
  options: RunOptions,
): Promise<string> {
  const done = await session.run({ $case: "openModel", value }, options);
  return resultOf(done, "modelOpened").modelId;
}

/** Frees a model. */
export async function closeModel(session: ShimSession, modelId: string): Promise<void> {
  await session.run({ $case: "closeModel", value: { modelId } });
}

/** Runs batches with hooks; gives the raw accumulators and what they were summed over. */
export async function collect(
  session: ShimSession,
  modelId: string,
  hooks: readonly HookPoint[],
  batches: Batches,
  options: RunOptions,
): Promise<{ tensors: ReadonlyMap<string, Tensor>; collected: Collected }> {
  const feed = feedOf(batches);
  const value = { modelId, feedId: feed.id, hooks: hooks.map(toWireHook) };
  const { done, tensors } = await session.runForTensors({ $case: "collect", value }, options, feed);
  return { tensors, collected: resultOf(done, "collected") };
}

/** The mean next-token cross entropy over batches, in nats per token. */
export async function evaluateLoss(session: ShimSession, modelId: string, batches: Batches, options: RunOptions): Promise<number> {
  const feed = feedOf(batches);
  const done = await session.run({ $case: "evaluateLoss", value: { modelId, feedId: feed.id } }, options, feed);
  return resultOf(done, "lossEvaluated").loss;
}

/** The logits of one batch: F32 [B, S, vocab]. */
export async function forward(session: ShimSession, modelId: string, batch: Batch, options: RunOptions): Promise<Tensor> {
  const feed = feedOf([batch]);
  const { tensors } = await session.runForTensors({ $case: "forward", value: { modelId, feedId: feed.id } }, options, feed);
  const logits = tensors.get("logits.0");
  if (logits) return logits;
  throw new PruneError("INTERNAL", "the shim returned no logits");
}

/** Cuts a loaded model where it stands. */
export async function cutModel(
  session: ShimSession,
  modelId: string,
  child: { indexSets: IndexSets; tensors: readonly StoredSlice[]; configJson: string },
  options: RunOptions,
): Promise<void> {
  const feed = indexSetFeed(child.indexSets);
  const value = { modelId, feedId: feed.id, tensors: child.tensors.map(toWireSlice), configJson: child.configJson };
  await session.run({ $case: "cutModel", value }, options, feed);
}
