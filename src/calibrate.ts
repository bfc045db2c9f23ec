import { createHash, type Hash } from "node:crypto";
import type { ScoreFile } from "./checkpoint/scoreFile.js";
import type { ScoreStore } from "./checkpoint/scoreStore.js";
import { PruneError } from "./errors.js";
import type { Parent } from "./inspect.js";
import type { Accumulators } from "./policy/scores.js";
import type { RunOptions } from "./progress.js";
import { type Collector, score } from "./score.js";
import { type Batch, type Batches, countOf } from "./tensor.js";

/** How calibration is kept as it grows. */
export interface CalibrationOptions extends RunOptions {
  readonly store: ScoreStore;
  /** Batches between two writes of what was measured. Other steps round other sums: part of what scores depend on. */
  readonly checkpointEvery: number;
}

/**
 * Measures a model over batches in steps, each of which is written when it is done: calibration that was killed goes on with the first batch
 * that no step holds, and comes to the same scores. Scores that are there are given back, once the batches are seen to be the same.
 *
 * @throws PruneError CHECKPOINT_MISMATCH where stored scores are of other batches, and what {@link score} throws
 */
export async function calibrate(collector: Collector, parent: Parent, batches: Batches, options: CalibrationOptions): Promise<ScoreFile> {
  const { store, checkpointEvery } = options;
  const data = new HashedBatches(batches);
  try {
    const finished = await store.read();
    const before = finished ?? (await store.readPartial());
    if (before) await data.skip(before, store.path);
    if (finished) {
      await data.checkDone(finished, store.path);
      return finished;
    }
    let sums = before;
    while (!(await data.isDone())) {
      const step = await score(collector, parent, data.next(checkpointEvery), shifted(options, data.drawn, countOf(batches)));
      sums = withData(sums ? addScores(sums, step) : step, data.hash);
      await store.writePartial(sums);
    }
    if (!sums) throw new PruneError("BAD_DATA", "the data loader has no batches", { hint: "give it at least one" });
    await store.write(sums);
    return sums;
  } finally {
    await data.close();
  }
}

/** One pass over batches, which remembers what went by as a hash. */
class HashedBatches {
  readonly #iterator: Iterator<Batch> | AsyncIterator<Batch>;
  readonly #hash: Hash = createHash("sha256");
  #ahead: Promise<IteratorResult<Batch>> | undefined;
  #done = false;
  drawn = 0;

  constructor(batches: Batches) {
    this.#iterator = Symbol.asyncIterator in batches ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]();
  }

  /** SHA-256 over the batches so far. */
  get hash(): string {
    return `sha256:${this.#hash.copy().digest("hex")}`;
  }

  async isDone(): Promise<boolean> {
    return (await this.#peek()).done ?? false;
  }

  /** The next n batches, drawn as they are asked for. */
  next(n: number): Batches {
    return { [Symbol.asyncIterator]: () => this.#draw(n) };
  }

  /** Draws the batches that scores were measured over, and checks that they are these. */
  async skip({ provenance }: ScoreFile, path: string): Promise<void> {
    const { batches, data } = provenance;
    // Files that other tools wrote do not say.
    if (data === undefined || batches === undefined) return;
    for await (const _ of this.#draw(Number(batches)));
    if (this.drawn !== Number(batches) || this.hash !== data) throw otherData(path, "other calibration data");
  }

  /** Checks that finished scores were measured over all batches. */
  async checkDone({ provenance }: ScoreFile, path: string): Promise<void> {
    if (provenance["data"] !== undefined && !(await this.isDone()))
      throw otherData(path, `${this.drawn} batches, and the data loader has more`);
  }

  /** Tells the source that no more batches are drawn. */
  async close(): Promise<void> {
    if (!this.#done) await this.#iterator.return?.();
  }

  async *#draw(n: number): AsyncGenerator<Batch, void, void> {
    for (let i = 0; i < n; i++) {
      const { done, value } = await this.#peek();
      if (done) return;
      this.#ahead = undefined;
      this.drawn += 1;
      for (const [name, { dtype, shape, data }] of Object.entries<Batch[string]>(value)) {
        this.#hash.update(`${name} ${dtype} ${shape.join(" ")}\n`).update(data);
      }
      yield value;
    }
  }

  #peek(): Promise<IteratorResult<Batch>> {
    this.#ahead ??= this.#advance();
    return this.#ahead;
  }

  async #advance(): Promise<IteratorResult<Batch>> {
    this.#done = true; // an iterator that throws is done, too
    const result = await this.#iterator.next();
    this.#done = result.done ?? false;
    return result;
  }
}

function otherData(path: string, over: string): PruneError {
  return new PruneError("CHECKPOINT_MISMATCH", `${path} was measured over ${over}`, {
    hint: "give the same dataLoader, name another checkpoint folder, or remove this one to measure again",
  });
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

/** Progress of one step as progress of the whole. */
function shifted({ signal, onProgress }: RunOptions, before: number, total: number | undefined): RunOptions {
  if (!onProgress) return { signal };
  return { signal, onProgress: (progress) => onProgress({ ...progress, done: progress.done + before, total: total ?? 0 }) };
}
