import { stat } from "node:fs/promises";
import { extname } from "node:path";
import { PruneError } from "../errors.js";
import type { RunOptions } from "../progress.js";
import type { Batch, Batches } from "../tensor.js";
import { type BatchShape, checkBatchShape, packTokens } from "./pack.js";
import { readTexts } from "./textFile.js";
import { checkTokenIds, readTokenFile } from "./tokenFile.js";

/** What turns texts into token ids: a model, or the bridge with a checkpoint's tokenizer. */
export interface Tokenizer {
  /** The token ids of all texts in a row, each text closed by the end-of-text token. */
  tokenize(texts: readonly string[], options?: RunOptions): Promise<BigInt64Array>;
}

/** Defaults of {@link textBatches} and of the CLI: what Minitron's authors calibrate with (arXiv 2408.11796). */
export const BATCH_DEFAULTS: BatchShape = { seqLength: 4096, samples: 1024, batchSize: 1 };

/** Data that was read and checked as far as it can be without a tokenizer. */
export type CalibrationData =
  | { readonly kind: "tokens"; readonly batches: readonly Batch[] }
  | { readonly kind: "texts"; readonly texts: readonly string[] };

/**
 * Reads a data file: `.safetensors` with `input_ids`, `.jsonl` with `text`, or `.txt`.
 *
 * @param vocabSize - token ids must be below it
 * @throws PruneError PATH_NOT_FOUND, BAD_DATA or BAD_SAFETENSORS
 */
export async function readCalibrationData(path: string, vocabSize: number, shape: BatchShape): Promise<CalibrationData> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new PruneError("PATH_NOT_FOUND", `the data file ${path} does not exist`, { cause });
  });
  if (found.isFile() && found.size === 0)
    throw new PruneError("BAD_DATA", `the data file ${path} is empty`, { hint: "name a file with calibration data" });
  switch (extname(path)) {
    case ".safetensors": {
      const batches = await readTokenFile(path, shape);
      checkTokenIds(batches, vocabSize, path);
      return { kind: "tokens", batches };
    }
    case ".jsonl":
    case ".txt":
      return { kind: "texts", texts: await readTexts(path) };
    default:
      throw new PruneError("BAD_DATA", `${path}: data files end in .safetensors, .jsonl or .txt`);
  }
}

/** The batches of data that was read; texts are tokenized when the first batch is drawn, and their number is known from then on. */
export function batchesOf(data: CalibrationData, tokenizer: Tokenizer, shape: BatchShape): Batches {
  let packed = data.kind === "tokens" ? data.batches : undefined;
  return {
    get size() {
      return packed?.length;
    },
    async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
      if (data.kind === "texts") packed ??= packTokens(await tokenizer.tokenize(data.texts), shape);
      if (!packed || packed.length === 0) throw new PruneError("BAD_DATA", "the texts have no tokens");
      yield* packed;
    },
  };
}

/**
 * Calibration batches from a data file, tokenized with the model's tokenizer where it holds text. Texts are joined and cut into sequences of
 * `seqLength` tokens. The file is read when the first batch is drawn.
 *
 * @throws PruneError BAD_OPTION at once; PATH_NOT_FOUND, BAD_DATA or BAD_SAFETENSORS when batches are drawn
 */
export function textBatches(
  path: string,
  model: Tokenizer & { readonly hyperparameters: { readonly vocab_size: number } },
  options: Partial<BatchShape> = {},
): Batches {
  const shape = { ...BATCH_DEFAULTS, ...options };
  checkBatchShape(shape);
  let batches: Batches | undefined;
  return {
    get size() {
      return batches?.size;
    },
    async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
      batches ??= batchesOf(await readCalibrationData(path, model.hyperparameters.vocab_size, shape), model, shape);
      yield* batches;
    },
  };
}
