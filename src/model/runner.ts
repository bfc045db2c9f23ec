import { type ForwardArgs, toBatch } from "../data/args.js";
import { type DataSource, toBatches } from "../data/toBatches.js";
import type { Outputs } from "../losses.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { HookPoint } from "../policy/scores.js";
import type { RunOptions } from "../progress.js";
import type { PythonRef } from "../pythonRef.js";
import type { Collection } from "../score.js";
import type { Asks } from "../shim/feed.js";
import { type Answer, checkPython, collect, evaluateLoss, forward, type Measured, runBatch } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";
import { asksOfBatches } from "../shim/wire.js";
import { asFloat32, bytesOf, type Tensor } from "../tensor.js";
import { CollectedModel, RunningLoop } from "./loop.js";
import { OpenHandle } from "./openHandle.js";
import type { CollectSource, ForwardLoop, ForwardOptions, LogitsOptions, RunnableModel, ScoreFunc } from "./runnable.js";

/** What can be done with a model that a shim has open, whatever it was opened from. */
export abstract class Runner extends OpenHandle implements RunnableModel {
  readonly #session: ShimSession;

  constructor(session: ShimSession) {
    super(session);
    this.#session = session;
  }

  /** The sizes that the model has now, under Megatron's names. */
  abstract get hyperparameters(): Hyperparameters;

  /** What a loop asks for, as far as the model gives it. */
  protected asked(asks: Asks): Asks {
    return asks;
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

  /** Every floating-point tensor that the model gives of one batch, by its name, in F32: `last_hidden_state` without a head, for one. */
  async outputs(args: ForwardArgs, options: RunOptions = {}): Promise<Outputs> {
    const ask = { batch: toBatch(args), returns: "output" } as const;
    return Object.fromEntries(await runBatch(this.#session, await this.modelId(options), ask, this.within(options)));
  }

  /**
   * Has a function judge the model: higher is better.
   *
   * @param scoreFunc - called with this model, or a Python function that is called with the shim's
   * @throws PruneError BAD_OPTION or PYTHON_FAILED where it gives no finite number; what it throws, as it is
   */
  score(scoreFunc: ScoreFunc | PythonRef, options: RunOptions = {}): Promise<number> {
    const call = typeof scoreFunc === "function" ? () => scoreFunc(this) : scoreFunc;
    return this.judge(call, "-(await model.loss(batches))", options);
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
    const loop = new RunningLoop(source, (calls) => new CollectedModel(calls, this.hyperparameters));
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
