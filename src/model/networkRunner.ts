import type { ForwardArgs } from "../data/args.js";
import { toNetworkBatch } from "../data/networkArgs.js";
import { PruneError } from "../errors.js";
import type { RunOptions } from "../progress.js";
import type { PythonRef } from "../pythonRef.js";
import { runBatch } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";
import type { Tensor } from "../tensor.js";
import { OpenHandle } from "./openHandle.js";
import type { NetworkScoreFunc, RunnableNetwork } from "./runnableNetwork.js";

/** What can be done with a network that a shim has open, whole or as a candidate. */
export abstract class NetworkRunner extends OpenHandle implements RunnableNetwork {
  readonly #session: ShimSession;

  constructor(session: ShimSession) {
    super(session);
    this.#session = session;
  }

  /**
   * What forward returns for one batch, each floating-point tensor in F32: as `output` where it returns a tensor, else under its names, or
   * under its positions in a tuple.
   *
   * @throws PruneError BAD_DATA where the network cannot run it
   */
  async forward(args: ForwardArgs, options: RunOptions = {}): Promise<Readonly<Record<string, Tensor>>> {
    const ask = { batch: toNetworkBatch(args), returns: "output" } as const;
    return Object.fromEntries(await runBatch(this.#session, await this.modelId(options), ask, this.within(options)));
  }

  /** The one tensor that forward returns, or the `logits`: F32. Throws as {@link forward} does, or BAD_OPTION where there are several. */
  async output(args: ForwardArgs, options: RunOptions = {}): Promise<Tensor> {
    const tensors = await this.forward(args, options);
    const [first, ...others] = Object.values(tensors);
    const found = tensors["logits"] ?? (others.length === 0 ? first : undefined);
    if (found) return found;
    throw new PruneError(
      "BAD_OPTION",
      `the network returns ${Object.keys(tensors).join(", ") || "no tensor"}: none of them is its output`,
      {
        hint: "take the one that is meant: (await network.forward(args)).NAME",
      },
    );
  }

  /**
   * Has a function judge the network: higher is better.
   *
   * @param scoreFunc - called with this network, or a Python function that is called with the shim's, in eval mode and without gradients
   * @throws PruneError BAD_OPTION or PYTHON_FAILED where it gives no finite number; what it throws, as it is
   */
  score(scoreFunc: NetworkScoreFunc | PythonRef, options: RunOptions = {}): Promise<number> {
    const call = typeof scoreFunc === "function" ? () => scoreFunc(this) : scoreFunc;
    return this.judge(call, "the accuracy on held-out data", options);
  }
}
