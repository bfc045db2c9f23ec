import { randomUUID } from "node:crypto";
import { PruneError } from "../errors.js";
import type { Collect, Collected } from "../gen/prunebridge/v1/work.js";
import type { HookPoint } from "../policy/scores.js";
import type { RunOptions } from "../progress.js";
import { checkAllowed, isPythonRef, type PythonRef } from "../pythonRef.js";
import type { Batch, Batches, Returns, Tensor } from "../tensor.js";
import type { Ask, Asks, FeedSource } from "./feed.js";
import type { ShimSession } from "./session.js";
import { feedOf, resultOf, toWireHook } from "./wire.js";

/** What a batch gives back: a loss as a number, logits as a tensor. */
export type Answer = number | Tensor;

/** Python functions that run a model, or that bring its batches. */
export type PythonSource =
  | { readonly forwardLoop: PythonRef }
  | {
      readonly dataLoader: PythonRef;
      /** Default: the batch is the arguments of forward. */
      readonly collectFunc?: PythonRef | undefined;
      /** At most this many are drawn. Default: all. */
      readonly maxBatches?: number | undefined;
    };

/** Raw accumulators, and what they were summed over. */
export interface Measured {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly collected: Collected;
}

/** Runs batches with hooks, from this side or by Python functions. */
export async function collect(
  session: ShimSession,
  modelId: string,
  hooks: readonly HookPoint[],
  source: Asks | PythonSource,
  options: RunOptions,
): Promise<Measured> {
  const { feed, ...brought } = bringing(source);
  const work: Collect = { modelId, hooks: hooks.map(toWireHook), ...brought };
  const { done, tensors } = await session.runForTensors({ $case: "collect", value: work }, options, feed);
  return { tensors, collected: resultOf(done, "collected") };
}

/** How work gets its batches: by a feed from here, or from Python functions. */
export function bringing(source: Asks | PythonSource): Pick<Collect, "feedId" | "python"> & { readonly feed?: FeedSource } {
  if (!(Symbol.asyncIterator in source)) return { feedId: "", python: toWirePython(source) };
  const feed = { id: randomUUID(), asks: source };
  return { feedId: feed.id, python: undefined, feed };
}

/** Throws PYTHON_DENIED where the shim may not call a function. What an attached shim may call, it alone knows. */
export function checkPython({ allowPython }: ShimSession, source: PythonSource | PythonRef): void {
  if (!allowPython) return;
  const functions = "kind" in source ? [source] : Object.values(source).filter(isPythonRef);
  for (const ref of functions) checkAllowed(ref, allowPython);
}

/** The mean next-token cross entropy over batches, in nats per token. */
export async function evaluateLoss(session: ShimSession, modelId: string, batches: Batches, options: RunOptions): Promise<number> {
  const feed = feedOf(batches);
  const done = await session.run({ $case: "evaluateLoss", value: { modelId, feedId: feed.id } }, options, feed);
  return resultOf(done, "lossEvaluated").loss;
}

/** What one batch gives back. */
export async function forward(
  session: ShimSession,
  modelId: string,
  { batch, returns, into }: { batch: Batch; returns: Returns; into?: Uint8Array | undefined },
  options: RunOptions,
): Promise<Answer> {
  return answerOf(returns, await runBatch(session, modelId, { batch, returns, into }, options));
}

/** The tensors that one batch gives back. */
export async function runBatch(
  session: ShimSession,
  modelId: string,
  ask: Required<Pick<Ask, "batch" | "returns">> & Pick<Ask, "into">,
  options: RunOptions,
): Promise<ReadonlyMap<string, Tensor>> {
  let given: ReadonlyMap<string, Tensor> | undefined;
  const answer = (tensors: ReadonlyMap<string, Tensor>): void => {
    given = tensors;
  };
  const feed = { id: randomUUID(), asks: only({ ...ask, answer }) };
  await session.run({ $case: "forward", value: { modelId, feedId: feed.id } }, options, feed);
  if (given !== undefined) return given;
  throw new PruneError("INTERNAL", "the shim did not answer the batch");
}

/** What a Python function that is called with the model gives. Throws PYTHON_DENIED or PYTHON_FAILED. */
export async function scoreByPython(session: ShimSession, modelId: string, { name }: PythonRef, options: RunOptions): Promise<number> {
  const done = await session.run({ $case: "scoreModel", value: { modelId, scoreFunc: name } }, options);
  return resultOf(done, "modelScored").score;
}

/** The tensors of a batch's answer as what was asked for. */
export function answerOf(returns: Returns, tensors: ReadonlyMap<string, Tensor>): Answer {
  const tensor = tensors.get(returns === "loss" ? "loss" : "logits");
  if (!tensor) throw new PruneError("INTERNAL", `the shim answered a batch without its ${returns}`);
  if (returns !== "loss") return tensor;
  return new DataView(tensor.data.buffer, tensor.data.byteOffset).getFloat64(0, true);
}

async function* only(ask: Ask): AsyncGenerator<Ask, void, void> {
  yield ask;
}

function toWirePython(source: PythonSource): Collect["python"] {
  if ("forwardLoop" in source) return { $case: "forwardLoop", value: source.forwardLoop.name };
  const { dataLoader, collectFunc, maxBatches = 0 } = source;
  return { $case: "data", value: { dataLoader: dataLoader.name, collectFunc: collectFunc?.name ?? "", maxBatches } };
}
