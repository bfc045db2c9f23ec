import type { ScoreFile } from "../checkpoint/scoreFile.js";
import { ScoreStore } from "../checkpoint/scoreStore.js";
import { drawBatches } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import { hashOf } from "../hash.js";
import type { GradientLoss, GradientRequest } from "../model/gradients.js";
import type { OpenedModel } from "../model/openedModel.js";
import { maskPoints } from "../policy/gradients/masks.js";
import type { RunOptions } from "../progress.js";
import { isPythonRef } from "../pythonRef.js";
import { asFloat32, type Batch, type Batches, type DrawnBatches } from "../tensor.js";
import { measureInSteps } from "./calibrate.js";
import type { CheckedGradnas } from "./gradnasConfig.js";
import { identityOf } from "./identity.js";

/**
 * The squared gradients of every mask, summed over the batches that the options name: what a checkpoint folder holds, or what is measured now.
 *
 * @throws PruneError CHECKPOINT_MISMATCH or BAD_SCORES where stored ones are of something else, and what measuring throws
 */
export async function gradientScores(model: OpenedModel, options: CheckedGradnas): Promise<ScoreFile> {
  const { dataLoader, collectFunc, maxIterDataLoader: maxBatches, lossFunc, checkpoint, checkpointEvery } = options;
  const { fingerprint } = model.parent;
  if (isPythonRef(dataLoader)) {
    const source = { dataLoader, collectFunc: isPythonRef(collectFunc) ? collectFunc : undefined, maxBatches };
    if (checkpoint === undefined) return measure(model, source, lossFunc, options);
    const kept = { loss: await nameOf(lossFunc), source: `python ${JSON.stringify(source)}`, dtype: model.dtype };
    const store = new ScoreStore(checkpoint, fingerprint, kept, "gradients");
    // A loader in Python brings its own batches: it is run as a whole, or not at all.
    return (await store.read()) ?? store.write(await measure(model, source, lossFunc, options));
  }
  const drawn = drawBatches(dataLoader, { collectFunc: typeof collectFunc === "function" ? collectFunc : undefined, maxBatches });
  if (checkpoint === undefined) return measure(model, drawn, lossFunc, options);
  const kept = { loss: await nameOf(lossFunc), source: "batches", dtype: model.dtype, checkpointEvery: String(checkpointEvery) };
  const store = new ScoreStore(checkpoint, fingerprint, kept, "gradients");
  const { batches, withItems } = remembering(drawn);
  return measureInSteps((some, within) => measure(model, withItems(some), lossFunc, within), batches, { ...options, store });
}

async function measure(
  model: OpenedModel,
  source: GradientRequest<never>["source"],
  loss: GradientLoss<never>,
  options: RunOptions,
): Promise<ScoreFile> {
  const { tensors, collected } = await model.collectGradients({ masks: maskPoints(model.parent.architecture), source, loss }, options);
  const accumulators = new Map([...tensors].map(([name, tensor]) => [name, { shape: tensor.shape, data: asFloat32(tensor) }]));
  for (const [name, { data }] of accumulators) {
    if (data.every(Number.isFinite)) continue;
    throw new PruneError("BAD_SCORES", `the squared gradients of ${name} sum to what is not finite`, {
      hint: "scale the loss down, or open the model in float32",
    });
  }
  return {
    accumulators,
    fingerprint: model.parent.fingerprint,
    provenance: { batches: String(collected.batches), samples: String(collected.samples), tokens: String(collected.tokens) },
  };
}

/** Batches as they are drawn, and what finds the items again that they were made of: a loss function here is given these. */
function remembering<Item>(drawn: DrawnBatches<Item>): { batches: Batches; withItems: (some: Batches) => DrawnBatches<Item> } {
  const items = new WeakMap<Batch, Item>();
  return {
    batches: {
      get size() {
        return drawn.size;
      },
      async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
        for await (const { item, batch } of drawn) {
          items.set(batch, item);
          yield batch;
        }
      },
    },
    withItems: (some) => ({
      async *[Symbol.asyncIterator]() {
        for await (const batch of some) yield { batch, item: items.get(batch) as Item }; // every batch was set
      },
    }),
  };
}

async function nameOf(loss: GradientLoss<never>): Promise<string> {
  return typeof loss === "string" ? loss : `function ${hashOf(await identityOf(loss))}`;
}
