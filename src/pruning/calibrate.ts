import type { ScoreFile } from "../checkpoint/scoreFile.js";
import type { ScoreStore } from "../checkpoint/scoreStore.js";
import { PruneError } from "../errors.js";
import type { Network } from "../inspect.js";
import type { Accumulators } from "../policy/scores.js";
import type { RunOptions } from "../progress.js";
import { withTotal } from "../progress.js";
import { type Collector, score } from "../score.js";
import { type Batches, countOf } from "../tensor.js";
import { HashedBatches } from "./hashedBatches.js";

/** How calibration is kept as it grows. */
export interface CalibrationOptions extends RunOptions {
  readonly store: ScoreStore;
  /** Batches between two writes of what was measured. Other steps round other sums: part of what scores depend on. */
  readonly checkpointEvery: number;
}

/** Measures a model over the batches of one step. */
export type MeasureStep = (batches: Batches, options: RunOptions) => Promise<ScoreFile>;

/** Measures every importance of a model in steps, as {@link measureInSteps} does. */
export function calibrate(collector: Collector, parent: Network, batches: Batches, options: CalibrationOptions): Promise<ScoreFile> {
  return measureInSteps((some, within) => score(collector, parent, some, within), batches, options);
}

/**
 * Measures a model over batches in steps, each of which is written when it is done: calibration that was killed goes on with the first batch
 * that no step holds, and comes to the same scores. Scores that are there are given back, once the batches are seen to be the same.
 *
 * @throws PruneError CHECKPOINT_MISMATCH where stored scores are of other batches, and what measuring throws, batches counted from the first
 *   of all
 */
export async function measureInSteps(measure: MeasureStep, batches: Batches, options: CalibrationOptions): Promise<ScoreFile> {
  const { store, checkpointEvery, signal } = options;
  const data = new HashedBatches(batches, signal);
  const stepOptions = optionsOfSteps(options, () => countOf(batches));
  try {
    const finished = await store.read();
    if (finished) {
      await checkData(data, finished, store.path);
      await store.dropPartial();
      return finished;
    }
    let sums = await store.readPartial();
    if (sums) await data.skip(sums, store.partialPath);
    while (!(await data.isDone())) {
      const first = data.drawn;
      const step = await measure(data.next(checkpointEvery), stepOptions(first)).catch((error: unknown) => {
        throw sayFirst(error, first);
      });
      sums = await store.writePartial(withData(sums ? addScores(sums, step) : step, data.hash));
    }
    if (!sums) throw new PruneError("BAD_DATA", "the data loader has no batches", { hint: "give it at least one" });
    return await store.write(sums);
  } finally {
    await data.close();
  }
}

async function checkData(data: HashedBatches, finished: ScoreFile, path: string): Promise<void> {
  // Files that other tools wrote do not say what they were measured over.
  if (finished.provenance["data"] === undefined) return;
  await data.skip(finished, path);
  await data.checkDone(path);
}

/** What measures a step counts its batches from 0. */
function sayFirst(error: unknown, first: number): unknown {
  if (first === 0 || !(error instanceof PruneError) || error.code !== "BAD_DATA") return error;
  return new PruneError(error.code, `of the batches from ${first} on, ${error.detail}`, { hint: error.hint, cause: error });
}

const COUNTS = ["batches", "samples", "tokens"] as const;

/** The scores over two stretches of batches. Every reduction is a sum. */
function addScores(a: ScoreFile, b: ScoreFile): ScoreFile {
  const counts = COUNTS.map((name) => [name, String(Number(a.provenance[name]) + Number(b.provenance[name]))]);
  return {
    ...b,
    accumulators: addAccumulators(a.accumulators, b.accumulators),
    provenance: { ...b.provenance, ...Object.fromEntries(counts) },
  };
}

function addAccumulators(a: Accumulators, b: Accumulators): Accumulators {
  const sums = [...b].map(([name, { shape, data }]) => {
    const other = a.get(name)?.data;
    return [name, { shape, data: data.map((value, i) => value + (other?.[i] ?? 0)) }] as const;
  });
  return new Map(sums);
}

function withData(scores: ScoreFile, data: string): ScoreFile {
  return { ...scores, provenance: { ...scores.provenance, data } };
}

/** The options of a step that begins after some batches: its progress is told as progress of the whole. */
function optionsOfSteps({ signal, onProgress }: RunOptions, total: () => number | undefined): (drawn: number) => RunOptions {
  if (!onProgress) return () => ({ signal });
  const onBatches = withTotal(onProgress, total);
  return (drawn) => ({
    signal,
    onProgress: (progress) => {
      if (progress.unit === "batches") onBatches({ ...progress, done: progress.done + drawn });
      else onProgress(progress);
    },
  });
}
