import { unlessCancelled } from "../cancel.js";
import { PruneError } from "../errors.js";
import {
  BuiltInLoss,
  type CollectGradients,
  type GradientsCollected,
  HookSide,
  type Mask as WireMask,
} from "../gen/prunebridge/v1/work.js";
import type { LossAndGradient, LossFunc, Outputs } from "../losses.js";
import type { RunOptions } from "../progress.js";
import { isPythonRef, type PythonRef } from "../pythonRef.js";
import { type Batch, bytesOf, type DrawnBatches, type Tensor } from "../tensor.js";
import type { Ask, Asks } from "./feed.js";
import { bringing, type PythonSource } from "./runWork.js";
import type { ShimSession } from "./session.js";
import { resultOf } from "./wire.js";

const BUILT_IN = {
  causal_lm: BuiltInLoss.BUILT_IN_LOSS_CAUSAL_LM,
  masked_lm: BuiltInLoss.BUILT_IN_LOSS_MASKED_LM,
  sequence_classification: BuiltInLoss.BUILT_IN_LOSS_SEQUENCE_CLASSIFICATION,
  mse: BuiltInLoss.BUILT_IN_LOSS_MSE,
} as const;
const SIDES = { input: HookSide.HOOK_SIDE_INPUT, output: HookSide.HOOK_SIDE_OUTPUT } as const;

/** A loss that the shim knows. */
export type BuiltInLossName = keyof typeof BUILT_IN;

export const BUILT_IN_LOSSES = Object.keys(BUILT_IN) as readonly BuiltInLossName[]; // the object's own keys

/** What gradients are of: a loss that the shim knows, a Python function, or a function of the caller's. */
export type GradientLoss<Item> = BuiltInLossName | PythonRef | LossFunc<Item>;

/** A mask of `units` ones on the last axis of what a module takes or gives, each over as many positions in a row. */
export interface GradientMask {
  /** The name that its sums come back under. */
  readonly key: string;
  /** Dotted module path. */
  readonly module: string;
  readonly side: "input" | "output";
  readonly units: number;
}

/** What gradients are collected of. */
export interface GradientRequest<Item> {
  readonly masks: readonly GradientMask[];
  /** Batches, or Python functions that bring them, whose losses no function of the caller's can take. */
  readonly source: DrawnBatches<Item> | Extract<PythonSource, { dataLoader: PythonRef }>;
  readonly loss: GradientLoss<Item>;
}

/** Sums of squared gradients, F32 [units] by mask, and what they were summed over. */
export interface CollectedGradients {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly collected: GradientsCollected;
}

/**
 * Sums the squares of masks' gradients over batches.
 *
 * @throws PruneError BAD_DATA that names the batch, or what a loss function or an iterable throws, as it is
 */
export async function collectGradients<Item>(
  session: ShimSession,
  modelId: string,
  { masks, source, loss }: GradientRequest<Item>,
  options: RunOptions,
): Promise<CollectedGradients> {
  const ended = new AbortController();
  const { feed, feedId, python } = bringing(Symbol.asyncIterator in source ? asksOf(source, loss, ended.signal) : source);
  const data = python?.$case === "data" ? python.value : undefined;
  const value: CollectGradients = { modelId, feedId, masks: masks.map(toWireMask), data, loss: toWireLoss(loss) };
  try {
    const { done, tensors } = await session.runForTensors({ $case: "collectGradients", value }, options, feed);
    return { tensors, collected: resultOf(done, "gradientsCollected") };
  } finally {
    // What still waits for an output waits in vain.
    ended.abort();
  }
}

function toWireMask({ side, ...mask }: GradientMask): WireMask {
  return { ...mask, side: SIDES[side] };
}

function toWireLoss<Item>(loss: GradientLoss<Item>): CollectGradients["loss"] {
  if (typeof loss === "function") return { $case: "client", value: true };
  return isPythonRef(loss) ? { $case: "lossFunc", value: loss.name } : { $case: "builtIn", value: BUILT_IN[loss] };
}

function asksOf<Item>(source: DrawnBatches<Item>, loss: GradientLoss<Item>, ended: AbortSignal): Asks {
  return {
    get size() {
      return source.size;
    },
    [Symbol.asyncIterator]: () => (typeof loss === "function" ? judgedAsks(source, loss, ended) : plainAsks(source)),
  };
}

async function* plainAsks<Item>(source: DrawnBatches<Item>): AsyncGenerator<Ask, void, void> {
  for await (const { batch } of source) yield { batch };
}

/** Each batch, and then its loss, once what the model returns for it has come. */
async function* judgedAsks<Item>(source: DrawnBatches<Item>, loss: LossFunc<Item>, ended: AbortSignal): AsyncGenerator<Ask, void, void> {
  let number = 0;
  for await (const { item, batch } of source) {
    let hear: (output: Outputs) => void = () => {};
    const heard = new Promise<Outputs>((resolve) => {
      hear = resolve;
    });
    yield { batch, returns: "output", answer: (tensors) => hear(Object.fromEntries(tensors)) };
    const output = await unlessCancelled(heard, ended);
    const given = await unlessCancelled(Promise.resolve(loss(output, item)), ended);
    yield { batch: toReply(given, output, `batch ${number}`) };
    number += 1;
  }
}

function toReply(given: LossAndGradient, output: Outputs, where: string): Batch {
  const { loss, gradient } = checkForm(given, where);
  const named = "dtype" in gradient ? { [Object.keys(output)[0] ?? ""]: gradient as Tensor } : (gradient as Outputs); // told apart by dtype
  const gradients = Object.entries(named).map(
    ([name, tensor]) => [`gradient.${name}`, checkGradient(tensor, name, output, where)] as const,
  );
  return { loss: { dtype: "F64", shape: [], data: bytesOf(Float64Array.of(loss)) }, ...Object.fromEntries(gradients) };
}

function checkForm(given: unknown, where: string): LossAndGradient {
  const { loss, gradient } = (typeof given === "object" && given !== null ? given : {}) as Partial<LossAndGradient>; // checked below
  if (typeof loss === "number" && typeof gradient === "object" && gradient !== null) return { loss, gradient };
  throw new PruneError("BAD_OPTION", `lossFunc gave no { loss, gradient } for ${where}`, {
    hint: "return a number and the gradient of what the model returned: crossEntropy() gives both",
  });
}

function checkGradient(gradient: Tensor, name: string, output: Outputs, where: string): Tensor {
  const due = output[name];
  if (!due) {
    throw new PruneError("BAD_OPTION", `lossFunc gave a gradient of ${name} for ${where}, which the model does not return`, {
      hint: `it returns ${Object.keys(output).join(", ")}`,
    });
  }
  const fits = gradient?.dtype === "F32" && gradient.shape?.join() === due.shape.join();
  if (fits && gradient.data?.length === due.data.length) return gradient;
  const found = gradient?.dtype && gradient.shape ? `${gradient.dtype} [${gradient.shape.join(", ")}]` : String(gradient);
  throw new PruneError("BAD_OPTION", `lossFunc gave ${found} for ${where} as the gradient of ${name}, F32 [${due.shape.join(", ")}]`);
}
