import { type ForwardArgs, toBatch } from "../data/args.js";
import { type DataSource, toBatches } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import { AskQueue } from "../shim/askQueue.js";
import type { Ask, Asks } from "../shim/feed.js";
import { type Answer, answerOf } from "../shim/runWork.js";
import type { Returns, Tensor } from "../tensor.js";
import type { ForwardLoop, LoopModel } from "./runnable.js";

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

  forward(args: ForwardArgs, options: { readonly returns: "loss" }): Promise<number>;
  forward(args: ForwardArgs, options: { readonly returns: "logits" | "last_logits" }): Promise<Tensor>;
  forward(args: ForwardArgs): Promise<void>;
  forward(args: ForwardArgs, { returns }: { readonly returns?: Returns } = {}): Promise<unknown> {
    const answer = this.#forward(args, returns);
    // A loop that does not wait for it learns of it by its collection.
    answer.catch(() => {});
    return answer;
  }

  async loss(batches: DataSource): Promise<number> {
    const parts: Promise<number>[] = [];
    let tokens = 0;
    for await (const batch of toBatches(batches)) {
      const [rows = 0, length = 0] = batch["input_ids"]?.shape ?? [];
      const predicted = rows * (length - 1);
      tokens += predicted;
      parts.push(this.forward(batch, { returns: "loss" }).then((loss) => loss * predicted));
    }
    if (tokens === 0) throw new PruneError("BAD_DATA", "there is no batch to take the loss of", { hint: "give at least one batch" });
    return (await Promise.all(parts)).reduce((sum, part) => sum + part, 0) / tokens;
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

  async #forward(args: ForwardArgs, returns: Returns | undefined): Promise<Answer | undefined> {
    if (this.#refusal !== undefined) throw this.#refusal;
    const batch = toBatch(args, `batch ${this.#batches} of the forward loop`);
    this.#batches += 1;
    return new Promise((resolve, reject) => {
      const settle = (answer?: Answer): void => {
        this.#waiting.delete(reject);
        resolve(answer);
      };
      this.#waiting.add(reject);
      if (returns === undefined) this.#queue.push({ batch }, settle);
      else this.#queue.push(asking(batch, returns, settle), () => {});
    });
  }
}

function asking(batch: Ask["batch"], returns: Returns, settle: (answer: Answer) => void): Ask {
  return { batch, returns, answer: (tensors) => settle(answerOf(returns, tensors)) };
}
