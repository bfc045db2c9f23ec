import { PruneError } from "../errors.js";
import { type Batch, bytesOf } from "../tensor.js";

/** How token ids become batches. */
export interface BatchShape {
  /** Tokens of a sequence, S. */
  readonly seqLength: number;
  /** Sequences of a batch, B; the last batch may have fewer. */
  readonly batchSize: number;
  /** At most this many sequences. */
  readonly samples: number;
}

/** Throws BAD_OPTION where a size of a shape is no positive whole number. */
export function checkBatchShape(shape: BatchShape): void {
  for (const name of ["seqLength", "batchSize", "samples"] as const) {
    if (Number.isSafeInteger(shape[name]) && shape[name] > 0) continue;
    throw new PruneError("BAD_OPTION", `${name} is ${shape[name]}; it must be a whole number, 1 or more`);
  }
}

/**
 * Cuts one stream of token ids into sequences without padding, which would count as activations. What is left over is dropped, unless the
 * whole stream is shorter than one sequence: then it is one, of its own length.
 */
export function packTokens(ids: BigInt64Array, { seqLength, batchSize, samples }: BatchShape): Batch[] {
  const length = Math.min(seqLength, ids.length);
  const sequences = length === 0 ? 0 : Math.min(samples, Math.floor(ids.length / length));
  const batches: Batch[] = [];
  for (let first = 0; first < sequences; first += batchSize) {
    const count = Math.min(batchSize, sequences - first);
    batches.push(tokenBatch(ids.subarray(first * length, (first + count) * length), count));
  }
  return batches;
}

/** A batch of `count` sequences of equal length, from their token ids in a row. */
export function tokenBatch(ids: BigInt64Array, count: number): Batch {
  return { input_ids: { dtype: "I64", shape: [count, ids.length / count], data: bytesOf(ids) } };
}
