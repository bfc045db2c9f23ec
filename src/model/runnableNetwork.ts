import type { ForwardArgs } from "../data/args.js";
import type { DataSource } from "../data/toBatches.js";
import type { RunOptions } from "../progress.js";
import type { PythonSource } from "../shim/runWork.js";
import type { Tensor } from "../tensor.js";

/** A network that can be run: a loaded one, or a candidate of a search. */
export interface RunnableNetwork {
  /**
   * What forward returns for one batch, each floating-point tensor in F32: as `output` where it returns a tensor, else under its names, or
   * under its positions in a tuple.
   */
  forward(args: ForwardArgs, options?: RunOptions): Promise<Readonly<Record<string, Tensor>>>;
  /** The one tensor of that, or the `logits`: F32. */
  output(args: ForwardArgs, options?: RunOptions): Promise<Tensor>;
}

/** Judges a network: higher is better. */
export type NetworkScoreFunc = (network: RunnableNetwork) => number | Promise<number>;

/** The network that a forward loop is given. */
export interface LoopNetwork {
  /** Runs one batch; resolves as soon as it was sent and there is room for the next, so that a few are always in flight. */
  forward(args: ForwardArgs): Promise<void>;
}

/** Runs the network that it is given as often as it likes. What it returns is waited for, and not looked at. */
export type NetworkLoop = (network: LoopNetwork) => unknown;

/** What brings the batches that normalisation layers are calibrated over: batches, a loop that runs the network, or Python functions. */
export type NormsSource = DataSource | NetworkLoop | PythonSource;
