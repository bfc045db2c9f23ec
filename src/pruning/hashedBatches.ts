import { createHash, type Hash } from "node:crypto";
import { unlessCancelled } from "../cancel.js";
import type { ScoreFile } from "../checkpoint/scoreFile.js";
import { PruneError } from "../errors.js";
import type { Batch, Batches } from "../tensor.js";

/** SHA-256 over all batches of a source. */
export async function hashOfBatches(batches: Batches): Promise<string> {
  const data = new HashedBatches(batches);
  for await (const _ of data.next(Number.POSITIVE_INFINITY));
  return data.hash;
}

/** One pass over batches, which remembers what went by as a hash. */
export class HashedBatches {
  readonly #iterator: Iterator<Batch> | AsyncIterator<Batch>;
  readonly #signal: AbortSignal | undefined;
  readonly #hash: Hash = createHash("sha256");
  #ahead: Promise<IteratorResult<Batch>> | undefined;
  #source: "waits" | "thinks" | "ended" = "waits";
  #drawn = 0;

  constructor(batches: Batches, signal?: AbortSignal | undefined) {
    this.#iterator = Symbol.asyncIterator in batches ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]();
    this.#signal = signal;
  }

  /** Batches so far. */
  get drawn(): number {
    return this.#drawn;
  }

  /** SHA-256 over the batches so far. */
  get hash(): string {
    return `sha256:${this.#hash.copy().digest("hex")}`;
  }

  /** Whether the source has no more batches. Draws the next one, which stays the next. */
  async isDone(): Promise<boolean> {
    return (await this.#peek()).done ?? false;
  }

  /** The next n batches, drawn as they are asked for. */
  next(n: number): Batches {
    return { [Symbol.asyncIterator]: () => this.#draw(n) };
  }

  /**
   * Draws the batches that scores were measured over.
   *
   * @param path - the file that holds the scores
   * @throws PruneError CHECKPOINT_MISMATCH where they are others
   */
  async skip({ provenance }: ScoreFile, path: string): Promise<void> {
    const measured = Number(provenance["batches"]);
    for await (const _ of this.#draw(measured));
    if (this.#drawn !== measured) throw otherData(path, `${measured} batches, and the data loader has ${this.#drawn}`);
    if (this.hash !== provenance["data"]) throw otherData(path, "other calibration data");
  }

  /** Checks that there are no more batches than finished scores were measured over. Throws CHECKPOINT_MISMATCH. */
  async checkDone(path: string): Promise<void> {
    if (!(await this.isDone())) throw otherData(path, `${this.#drawn} batches, and the data loader has more`);
  }

  /** Tells the source that no more batches are drawn. */
  async close(): Promise<void> {
    if (this.#source === "ended") return;
    const returned = Promise.resolve(this.#iterator.return?.());
    // A source that still thinks about its next batch is not waited for.
    if (this.#source === "thinks") returned.catch(() => {});
    else await returned;
  }

  async *#draw(n: number): AsyncGenerator<Batch, void, void> {
    for (let i = 0; i < n; i++) {
      const { done, value } = await this.#peek();
      if (done) return;
      this.#ahead = undefined;
      this.#drawn += 1;
      for (const [name, { dtype, shape, data }] of Object.entries<Batch[string]>(value)) {
        this.#hash.update(`${name} ${dtype} ${shape.join(" ")}\n`).update(data);
      }
      yield value;
    }
  }

  #peek(): Promise<IteratorResult<Batch>> {
    this.#ahead ??= this.#advance();
    return unlessCancelled(this.#ahead, this.#signal);
  }

  async #advance(): Promise<IteratorResult<Batch>> {
    this.#source = "thinks";
    try {
      const result = await this.#iterator.next();
      this.#source = result.done ? "ended" : "waits";
      return result;
    } catch (error) {
      this.#source = "ended";
      throw error;
    }
  }
}

function otherData(path: string, over: string): PruneError {
  return new PruneError("CHECKPOINT_MISMATCH", `${path} was measured over ${over}`, {
    hint: "give the same dataLoader, name another checkpoint folder, or remove this one to measure again",
  });
}
