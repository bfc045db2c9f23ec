import { readSmallHeader, readTensorBytes } from "../checkpoint/safetensors.js";
import { PruneError } from "../errors.js";
import { asBigInt64, type Batch, type Tensor } from "../tensor.js";
import { type BatchShape, packTokens, tokenBatch } from "./pack.js";

/**
 * Reads token ids from a safetensors file: `input_ids` [batches, B, S] are the batches as they stand, [N, S] is split into batches of
 * `batchSize`.
 *
 * @throws PruneError BAD_DATA, BAD_SAFETENSORS or PATH_NOT_FOUND
 */
export async function readTokenFile(path: string, { batchSize, samples }: Pick<BatchShape, "batchSize" | "samples">): Promise<Batch[]> {
  const header = await readSmallHeader(path);
  const found = header.tensors.find(({ name }) => name === "input_ids");
  if (!found)
    throw new PruneError("BAD_DATA", `${path} has no tensor input_ids`, { hint: "store token ids as input_ids [N, S] or [batches, B, S]" });
  const { dtype, shape } = found;
  if ((dtype !== "I64" && dtype !== "I32") || (shape.length !== 2 && shape.length !== 3)) {
    throw new PruneError(
      "BAD_DATA",
      `${path}: input_ids is ${dtype} [${shape.join(", ")}]; it must be I64 or I32, [N, S] or [batches, B, S]`,
    );
  }
  if (shape.includes(0)) throw new PruneError("BAD_DATA", `${path}: input_ids [${shape.join(", ")}] is empty`);
  const ids = widen({ dtype, shape, data: await readTensorBytes(header, found) });
  const seqLength = shape.at(-1) ?? 0;
  if (shape.length === 2) return packTokens(ids, { seqLength, batchSize, samples });
  const [batches = 0, sequences = 0] = shape;
  const perBatch = sequences * seqLength;
  return Array.from({ length: batches }, (_, i) => tokenBatch(ids.subarray(i * perBatch, (i + 1) * perBatch), sequences));
}

/**
 * Refuses token ids that the model has no embedding for.
 *
 * @throws PruneError BAD_DATA that names the first of them
 */
export function checkTokenIds(batches: readonly Batch[], vocabSize: number, where: string): void {
  for (const [index, { input_ids: ids }] of batches.entries()) {
    const wrong = ids && asBigInt64(ids).find((id) => id < 0n || id >= BigInt(vocabSize));
    if (wrong === undefined) continue;
    throw new PruneError("BAD_DATA", `${where}: token id ${wrong} in batch ${index} is outside of the vocabulary of ${vocabSize}`, {
      hint: "tokenize the data with this checkpoint's tokenizer",
    });
  }
}

function widen(tensor: Tensor): BigInt64Array {
  if (tensor.dtype === "I64") return asBigInt64(tensor);
  const { buffer, byteOffset, byteLength } = tensor.data;
  return BigInt64Array.from(new Int32Array(buffer.slice(byteOffset, byteOffset + byteLength)), BigInt);
}
