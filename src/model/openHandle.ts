import { throwIfCancelled, unlessCancelled } from "../cancel.js";
import { PruneError } from "../errors.js";
import type { RunOptions } from "../progress.js";
import type { PythonRef } from "../pythonRef.js";
import { checkPython, scoreByPython } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";

/** Anything that a shim has open, and that can be judged. */
export abstract class OpenHandle {
  readonly #session: ShimSession;

  constructor(session: ShimSession) {
    this.#session = session;
  }

  /** The shim's id of the model, which is opened for it where it is not. */
  protected abstract modelId(options: RunOptions): Promise<string>;

  /** The options of a call, with whatever else ends it. */
  protected within(options: RunOptions): RunOptions {
    return options;
  }

  /** Throws PYTHON_DENIED where the shim may not call a function, before there is work for it. */
  checkAllowed(refs: readonly PythonRef[]): void {
    for (const ref of refs) checkPython(this.#session, ref);
  }

  /**
   * What a function thinks of the model: one of this side, which was given it, or a Python function that the shim calls with it.
   *
   * @param example - what such a function may give
   * @throws PruneError BAD_OPTION or PYTHON_FAILED where it gives no finite number; what it throws, as it is
   */
  protected async judge(scoreFunc: (() => unknown) | PythonRef, example: string, options: RunOptions): Promise<number> {
    if (typeof scoreFunc !== "function") {
      checkPython(this.#session, scoreFunc);
      return scoreByPython(this.#session, await this.modelId(options), scoreFunc, this.within(options));
    }
    throwIfCancelled(options.signal);
    const score = await unlessCancelled(Promise.resolve(scoreFunc()), options.signal);
    throwIfCancelled(options.signal);
    if (typeof score === "number" && Number.isFinite(score)) return score;
    throw new PruneError("BAD_OPTION", `scoreFunc gave ${String(score)} where a finite number belongs`, {
      hint: `higher is better: ${example} for one`,
    });
  }
}
