import type { NetworkAxis, NetworkFacts } from "./facts.js";
import { type KeptChannels, keptLength } from "./keptChannels.js";

/** What a network costs. */
export interface NetworkCosts {
  /** Elements of all parameters. */
  readonly params: number;
  /** Two for each multiply-accumulate of convolutions, linear layers and matrix products, for the dummy input. */
  readonly flops: number;
}

/** Counts what stays of a network. */
export function networkCosts({ parameters, operations }: NetworkFacts, kept: KeptChannels): NetworkCosts {
  const size = (axes: readonly NetworkAxis[]): number => axes.reduce((product, axis) => product * keptLength(axis, kept), 1);
  return {
    params: parameters.reduce((sum, { axes, isBuffer, blocks }) => (isBuffer ? sum : sum + size(axes) / blocks), 0),
    flops: operations.reduce((sum, { factor, axes }) => sum + 2 * factor * size(axes), 0),
  };
}
