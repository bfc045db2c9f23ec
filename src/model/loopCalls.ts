import { PruneError } from "../errors.js";
import { AskQueue } from "../shim/askQueue.js";
import type { Asks } from "../shim/feed.js";
import type { Asked } from "../shim/tensors.js";
import type { Batch, Tensor } from "../tensor.js";

/** A batch that was given to a running operation, and asks for something. */
export interface Asking {
  /** Resolves once it was sent, and there is room for the next. */
  readonly sent: Promise<void>;
  /** What it gives back. */
  readonly answer: Promise<ReadonlyMap<string, Tensor>>;
}

type MakeBatch = (where: string) => Batch;

/** The calls that a forward loop makes, as the batches of an operation. */
export class LoopCalls {
  readonly #queue = new AskQueue();
  readonly #waiting = new Set<(error: unknown) => void>();
  #refusal: unknown;
  #given = 0;

  /** What was given, as the operation draws it. `begin` is called when the first batch is drawn. */
  asks(begin: () => void): Asks {
    return {
      [Symbol.asyncIterator]: () => {
        begin();
        return this.#queue;
      },
    };
  }

  /** Batches so far. */
  get given(): number {
    return this.#given;
  }

  /**
   * Gives the next batch; resolves once it was sent, and there is room for the next.
   *
   * @throws what {@link LoopCalls.close} was given, or BAD_OPTION after the loop
   */
  give(makeBatch: MakeBatch): Promise<void> {
    const batch = this.#next(makeBatch);
    const [sent, onSent] = this.#wait<void>();
    this.#queue.push({ batch }, onSent);
    return sent;
  }

  /** Like {@link LoopCalls.give}, of a batch that gives something back, `into` some memory. */
  ask(makeBatch: MakeBatch, returns: Asked, into?: Uint8Array): Asking {
    const batch = this.#next(makeBatch);
    const [sent, onSent] = this.#wait<void>();
    const [answer, onAnswer] = this.#wait<ReadonlyMap<string, Tensor>>();
    this.#queue.push({ batch, returns, into, answer: onAnswer }, onSent);
    return { sent, answer };
  }

  /** Ends the batches, or has drawing them fail. */
  finish(failure?: { readonly error: unknown }): void {
    if (failure) this.#queue.fail(failure.error);
    else this.#queue.end();
  }

  /** Refuses what is run after the loop. */
  end(): void {
    this.#refusal ??= new PruneError("BAD_OPTION", "the forward loop that was given this model has ended", {
      hint: "wait for every forward() within the loop; outside of it run the model that was opened",
    });
  }

  /** Ends what waits, and refuses what comes, with what ended the operation. */
  close(cause: unknown): void {
    this.end();
    if (cause !== undefined) this.#refusal = cause;
    for (const fail of this.#waiting) fail(this.#refusal);
    this.#waiting.clear();
  }

  #next(makeBatch: MakeBatch): Batch {
    if (this.#refusal !== undefined) throw this.#refusal;
    const batch = makeBatch(`batch ${this.#given} of the forward loop`);
    this.#given += 1;
    return batch;
  }

  /** A promise that the end of the operation rejects, and what resolves it. */
  #wait<T>(): [promise: Promise<T>, resolve: (value: T) => void] {
    let settle: (value: T) => void = () => {};
    const promise = new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      settle = (value) => {
        this.#waiting.delete(reject);
        resolve(value);
      };
    });
    return [handled(promise), settle];
  }
}

/** The same promise, whose failure may go unheard: a loop that does not wait learns of it by its operation. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
