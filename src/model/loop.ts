import { throwIfCancelled, unlessCancelled } from "../cancel.js";
import { type ForwardArgs, toBatch } from "../data/args.js";
import { type DataSource, toBatches } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import { AskQueue } from "../shim/askQueue.js";
import type { Asks } from "../shim/feed.js";
import { type Answer, answerOf } from "../shim/runWork.js";
import { bytesOf, type Tensor } from "../tensor.js";
import type { ForwardLoop, ForwardOptions, LogitsOptions, LoopModel, LoopOptions } from "./runnable.js";

/** A forward loop whose calls of the model are the batches of a running collection. It is called when the first batch is drawn. */
export class RunningLoop {
  readonly #queue = new AskQueue();
  readonly #model: CollectedModel;
  readonly #loop: ForwardLoop;

  constructor(loop: ForwardLoop, hyperparameters: Hyperparameters) {
    this.#loop = loop;
    this.#model = new CollectedModel(this.#queue, hyperparameters);
  }

  /** What the loop runs; drawing fails as the loop does. */
  get asks(): Asks {
    return {
      [Symbol.asyncIterator]: () => {
        void this.#run();
        return this.#queue;
      },
    };
  }

  /** Says that the collection has ended: calls that wait, and later ones, fail. */
  close(cause?: unknown): void {
    this.#model.close(cause);
  }

  async #run(): Promise<void> {
    try {
      await this.#loop(this.#model);
      if (!this.#model.ran) throw new PruneError("BAD_DATA", "the forward loop ran no batch", { hint: "await model.forward(args) in it" });
      this.#queue.end();
    } catch (error) {
      this.#queue.fail(error);
    } finally {
      this.#model.end();
    }
  }
}

/** A batch that was given to a collection. */
interface Given {
  /** Resolves once it was sent, and there is room for the next. */
  readonly sent: Promise<void>;
  /** What it gives back, where it asks for something; else `sent`. */
  readonly answer: Promise<unknown>;
}

/** The model that a loop is given. */
class CollectedModel implements LoopModel {
  readonly #queue: AskQueue;
  readonly #waiting = new Set<(error: unknown) => void>();
  #refusal: unknown;
  #batches = 0;
  readonly hyperparameters: Hyperparameters;

  constructor(queue: AskQueue, hyperparameters: Hyperparameters) {
    this.#queue = queue;
    this.hyperparameters = hyperparameters;
  }

  forward(args: ForwardArgs, options: LoopOptions & { readonly returns: "loss" }): Promise<number>;
  forward(args: ForwardArgs, options: LoopOptions & LogitsOptions): Promise<Tensor>;
  forward(args: ForwardArgs, options?: LoopOptions): Promise<void>;
  forward(args: ForwardArgs, options: LoopOptions & ForwardOptions = {}): Promise<unknown> {
    return handled(unlessCancelled(this.#forward(args, options), options.signal));
  }

  loss(batches: DataSource, { signal }: LoopOptions = {}): Promise<number> {
    return handled(unlessCancelled(this.#loss(batches, signal), signal));
  }

  /** Whether a batch was run. */
  get ran(): boolean {
    return this.#batches > 0;
  }

  /** Refuses what is run after the loop. */
  end(): void {
    this.#refusal ??= new PruneError("BAD_OPTION", "the forward loop that was given this model has ended", {
      hint: "wait for every forward() within the loop; outside of it run the model that was opened",
    });
  }

  /** Ends what waits, and refuses what comes, with what ended the collection. */
  close(cause: unknown): void {
    this.end();
    if (cause !== undefined) this.#refusal = cause;
    for (const fail of this.#waiting) fail(this.#refusal);
    this.#waiting.clear();
  }

  async #forward(args: ForwardArgs, options: LoopOptions & ForwardOptions): Promise<unknown> {
    throwIfCancelled(options.signal);
    return this.#give(args, options).answer;
  }

  async #loss(batches: DataSource, signal: AbortSignal | undefined): Promise<number> {
    let sum: Promise<number> = Promise.resolve(0);
    let tokens = 0;
    for await (const batch of toBatches(batches)) {
      throwIfCancelled(signal);
      const [rows = 0, length = 0] = batch["input_ids"]?.shape ?? [];
      const predicted = rows * (length - 1);
      tokens += predicted;
      const { sent, answer } = this.#give(batch, { returns: "loss" });
      sum = handled(Promise.all([sum, answer]).then(([before, loss]) => before + Number(loss) * predicted));
      await sent;
    }
    if (tokens === 0) throw new PruneError("BAD_DATA", "there is no batch to take the loss of", { hint: "give at least one batch" });
    return (await sum) / tokens;
  }

  #give(args: ForwardArgs, { returns, into }: ForwardOptions): Given {
    if (this.#refusal !== undefined) throw this.#refusal;
    const batch = toBatch(args, `batch ${this.#batches} of the forward loop`);
    this.#batches += 1;
    const [sent, onSent] = this.#wait<void>();
    if (returns === undefined) {
      this.#queue.push({ batch }, onSent);
      return { sent, answer: sent };
    }
    const [answer, onAnswer] = this.#wait<Answer>();
    const answering = (tensors: ReadonlyMap<string, Tensor>): void => onAnswer(answerOf(returns, tensors));
    this.#queue.push({ batch, returns, into: into && bytesOf(into), answer: answering }, onSent);
    return { sent, answer };
  }

  /** A promise that the end of the collection rejects, and what resolves it. */
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

/** The same promise, whose failure may go unheard: a loop that does not wait learns of it by its collection. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
