import type { ForwardArgs } from "../data/args.js";
import type { DataSource } from "../data/toBatches.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { RunOptions } from "../progress.js";
import type { PythonSource } from "../shim/runWork.js";
import type { Returns, Tensor } from "../tensor.js";

/** Which logits a batch gives back, and where they are put. */
export interface LogitsOptions {
  readonly returns: "logits" | "last_logits";
  /**
   * Memory that they are put into, of which the tensor is then a view: a loop that gives the same memory again and again leaves no work for the
   * garbage collector. It may be read when the call has resolved; after a call that failed it holds anything. Default: memory of their own.
   */
  readonly into?: ArrayBufferView | undefined;
}

/** What a batch is asked for, in whatever form. */
export interface ForwardOptions extends Partial<Pick<LogitsOptions, "into">> {
  readonly returns?: Returns;
}

export type { PythonSource };

/** A model that can be run: an opened one, a candidate of a search, or the one that a forward loop is given. */
export interface RunnableModel {
  /** The sizes that it has now, under Megatron's names. */
  readonly hyperparameters: Hyperparameters;
  /** The mean next-token cross entropy of one batch, in nats, computed in float32. */
  forward(args: ForwardArgs, options: RunOptions & { readonly returns: "loss" }): Promise<number>;
  /** The logits of one batch: F32 [B, S, vocab], or, of the last position, F32 [B, vocab]. */
  forward(args: ForwardArgs, options: RunOptions & LogitsOptions): Promise<Tensor>;
  /** The mean next-token cross entropy over batches, in nats per token. An attention mask takes no token out of the mean. */
  loss(batches: DataSource, options?: RunOptions): Promise<number>;
}

/** What a call of a loop's model takes. Progress is the collection's to tell. */
export interface LoopOptions {
  /** Ends the call with CANCELLED, and a loss at its next batch. A batch that was given is measured all the same. */
  readonly signal?: AbortSignal | undefined;
}

/** The model that a forward loop is given: it measures whatever runs through it. */
export interface LoopModel extends RunnableModel {
  forward(args: ForwardArgs, options: LoopOptions & { readonly returns: "loss" }): Promise<number>;
  forward(args: ForwardArgs, options: LoopOptions & LogitsOptions): Promise<Tensor>;
  /** Runs one batch; resolves as soon as it was sent and there is room for the next, so that a few are always in flight. */
  forward(args: ForwardArgs, options?: LoopOptions): Promise<void>;
  /** As of any model; the next batch is drawn as soon as there is room for it. */
  loss(batches: DataSource, options?: LoopOptions): Promise<number>;
}

/** Runs the model that it is given as often as it likes. What it returns is waited for, and not looked at. */
export type ForwardLoop = (model: LoopModel) => unknown;

/** What brings the batches that are measured: batches, a loop that runs the model, or Python functions by name. */
export type CollectSource = DataSource | ForwardLoop | PythonSource;

/** Judges a model: higher is better. */
export type ScoreFunc = (model: RunnableModel) => number | Promise<number>;
