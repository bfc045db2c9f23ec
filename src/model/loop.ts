import { throwIfCancelled, unlessCancelled } from "../cancel.js";
import { type ForwardArgs, toBatch } from "../data/args.js";
import { type DataSource, toBatches } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { Asks } from "../shim/feed.js";
import { answerOf } from "../shim/runWork.js";
import { type Batch, bytesOf, type Tensor } from "../tensor.js";
import { handled, LoopCalls } from "./loopCalls.js";
import type { ForwardOptions, LogitsOptions, LoopModel, LoopOptions } from "./runnable.js";

/** A forward loop whose calls of the model are the batches of a running operation. It is called when the first batch is drawn. */
export class RunningLoop<Model> {
  readonly #calls = new LoopCalls();
  readonly #model: Model;
  readonly #loop: (model: Model) => unknown;

  /** @param modelOf - the model that the loop is given, which makes the calls */
  constructor(loop: (model: Model) => unknown, modelOf: (calls: LoopCalls) => Model) {
    this.#loop = loop;
    this.#model = modelOf(this.#calls);
  }

  /** What the loop runs; drawing fails as the loop does. */
  get asks(): Asks {
    return this.#calls.asks(() => void this.#run());
  }

  /** Says that the operation has ended: calls that wait, and later ones, fail. */
  close(cause?: unknown): void {
    this.#calls.close(cause);
  }

  async #run(): Promise<void> {
    try {
      await this.#loop(this.#model);
      if (this.#calls.given === 0)
        throw new PruneError("BAD_DATA", "the forward loop ran no batch", { hint: "await model.forward(args) in it" });
      this.#calls.finish();
    } catch (error) {
      this.#calls.finish({ error });
    } finally {
      this.#calls.end();
    }
  }
}

/** The language model that a loop is given. */
export class CollectedModel implements LoopModel {
  readonly #calls: LoopCalls;
  readonly hyperparameters: Hyperparameters;

  constructor(calls: LoopCalls, hyperparameters: Hyperparameters) {
    this.#calls = calls;
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

  async #forward(args: ForwardArgs, { returns, into, signal }: LoopOptions & ForwardOptions): Promise<unknown> {
    throwIfCancelled(signal);
    const makeBatch = (where: string): Batch => toBatch(args, where);
    if (returns === undefined) return this.#calls.give(makeBatch);
    return answerOf(returns, await this.#calls.ask(makeBatch, returns, into && bytesOf(into)).answer);
  }

  async #loss(batches: DataSource, signal: AbortSignal | undefined): Promise<number> {
    let sum: Promise<number> = Promise.resolve(0);
    let tokens = 0;
    for await (const batch of toBatches(batches)) {
      throwIfCancelled(signal);
      const [rows = 0, length = 0] = batch["input_ids"]?.shape ?? [];
      const predicted = rows * (length - 1);
      tokens += predicted;
      const { sent, answer } = this.#calls.ask(() => batch, "loss");
      sum = handled(Promise.all([sum, answer]).then(([before, tensors]) => before + Number(answerOf("loss", tensors)) * predicted));
      await sent;
    }
    if (tokens === 0) throw new PruneError("BAD_DATA", "there is no batch to take the loss of", { hint: "give at least one batch" });
    return (await sum) / tokens;
  }
}
