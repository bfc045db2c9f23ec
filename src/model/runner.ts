import { throwIfCancelled, unlessCancelled } from "../cancel.js";
import { type ForwardArgs, toBatch } from "../data/args.js";
import { type DataSource, toBatches } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { HookPoint } from "../policy/scores.js";
import type { RunOptions } from "../progress.js";
import type { PythonRef } from "../pythonRef.js";
import type { Collection } from "../score.js";
import type { Asks } from "../shim/feed.js";
import { type Answer, checkPython, collect, evaluateLoss, forward, type Measured, scoreByPython } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";
import { asksOfBatches } from "../shim/wire.js";
import { asFloat32, bytesOf, type Tensor } from "../tensor.js";
import { RunningLoop } from "./loop.js";
import type { CollectSource, ForwardLoop, ForwardOptions, LogitsOptions, RunnableModel, ScoreFunc } from "./runnable.js";

/** What can be done with a model that a shim has open, whatever it was opened from. */
export abstract class Runner implements RunnableModel {
  readonly #session: ShimSession;

  constructor(session: ShimSession) {
    this.#session = session;
  }

  /** The sizes that the model has now, under Megatron's names. */
  abstract get hyperparameters(): Hyperparameters;

  /** The shim's id of the model, which is opened for it where it is not. */
  protected abstract modelId(options: RunOptions): Promise<string>;

  /** What a loop asks for, as far as the model gives it. */
  protected asked(asks: Asks): Asks {
    return asks;
  }

  /** The options of a call, with whatever else ends it. */
  protected within(options: RunOptions): RunOptions {
    return options;
  }

  /**
   * Runs the model and measures at hook points.
   *
   * @param source - batches; a loop, which is called once with a model that measures what runs through it; or Python functions
   * @throws PruneError BAD_DATA, PYTHON_DENIED or PYTHON_FAILED; what a loop or an iterable throws, as it is
   */
  async collect(hooks: readonly HookPoint[], source: CollectSource, options: RunOptions = {}): Promise<Collection> {
    const { tensors, collected } = await this.#measure(hooks, source, this.within(options));
    const accumulators = new Map([...tensors].map(([name, tensor]) => [name, { shape: tensor.shape, data: asFloat32(tensor) }]));
    return { accumulators, ...collected };
  }

  /** The mean next-token cross entropy over batches, in nats per token. An attention mask takes no token out of the mean. */
  async loss(batches: DataSource, options: RunOptions = {}): Promise<number> {
    return evaluateLoss(this.#session, await this.modelId(options), toBatches(batches), this.within(options));
  }

  /** The mean next-token cross entropy of one batch, in nats, computed in float32. */
  forward(args: ForwardArgs, options: RunOptions & { readonly returns: "loss" }): Promise<number>;
  /** The logits of one batch: F32 [B, S, vocab], or, of the last position, F32 [B, vocab]. Default: all. */
  forward(args: ForwardArgs, options?: RunOptions & Partial<LogitsOptions>): Promise<Tensor>;
  async forward(args: ForwardArgs, options: RunOptions & ForwardOptions = {}): Promise<Answer> {
    const ask = { batch: toBatch(args), returns: options.returns ?? "logits", into: options.into && bytesOf(options.into) };
    return forward(this.#session, await this.modelId(options), ask, this.within(options));
  }

  /** Throws PYTHON_DENIED where the shim may not call a function, before there is work for it. */
  checkAllowed(refs: readonly PythonRef[]): void {
    for (const ref of refs) checkPython(this.#session, ref);
  }

  /**
   * Has a function judge the model: higher is better.
   *
   * @param scoreFunc - called with this model, or a Python function that is called with the shim's
   * @throws PruneError BAD_OPTION or PYTHON_FAILED where it gives no finite number; what it throws, as it is
   */
  async score(scoreFunc: ScoreFunc | PythonRef, options: RunOptions = {}): Promise<number> {
    if (typeof scoreFunc !== "function") {
      checkPython(this.#session, scoreFunc);
      return scoreByPython(this.#session, await this.modelId(options), scoreFunc, this.within(options));
    }
    throwIfCancelled(options.signal);
    const score: unknown = await unlessCancelled(Promise.resolve(scoreFunc(this)), options.signal);
    throwIfCancelled(options.signal);
    if (typeof score === "number" && Number.isFinite(score)) return score;
    throw new PruneError("BAD_OPTION", `scoreFunc gave ${String(score)} where a finite number belongs`, {
      hint: "higher is better: -(await model.loss(batches)) for one",
    });
  }

  async #measure(hooks: readonly HookPoint[], source: CollectSource, options: RunOptions): Promise<Measured> {
    if (typeof source === "function") return this.#measureLoop(hooks, source, options);
    if ("forwardLoop" in source || "dataLoader" in source) {
      checkPython(this.#session, source);
      return collect(this.#session, await this.modelId(options), hooks, source, options);
    }
    const asks = asksOfBatches(toBatches(source));
    return collect(this.#session, await this.modelId(options), hooks, asks, options);
  }

  async #measureLoop(hooks: readonly HookPoint[], source: ForwardLoop, options: RunOptions): Promise<Measured> {
    const modelId = await this.modelId(options);
    const loop = new RunningLoop(source, this.hyperparameters);
    try {
      const measured = await collect(this.#session, modelId, hooks, this.asked(loop.asks), options);
      loop.close();
      return measured;
    } catch (error) {
      loop.close(error);
      throw error;
    }
  }
}
