import type { PlanFile } from "../checkpoint/planFile.js";
import { PruneError } from "../errors.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { RunOptions } from "../progress.js";
import { closeModel } from "../shim/modelWork.js";
import type { ShimSession } from "../shim/session.js";
import { Runner } from "./runner.js";

/** A model as a plan would make it, looked at on the model's own weights, which stay as they are. Made by {@link Model.view}. */
export class ModelView extends Runner implements AsyncDisposable {
  readonly #session: ShimSession;
  readonly #modelId: string;
  readonly #onClosed: () => void;
  readonly #ending = new AbortController();
  #closed: Promise<void> | undefined;
  readonly plan: PlanFile;

  /** @internal */
  constructor(session: ShimSession, modelId: string, plan: PlanFile, onClosed: () => void) {
    super(session);
    this.#session = session;
    this.#modelId = modelId;
    this.#onClosed = onClosed;
    this.plan = plan;
  }

  /** The sizes that the plan makes. */
  get hyperparameters(): Hyperparameters {
    return this.plan.child.hyperparameters;
  }

  /** Ends the view, and what still runs on it. Safe to call twice. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected async modelId(): Promise<string> {
    if (!this.#closed) return this.#modelId;
    throw new PruneError("BAD_OPTION", "this view of a model was closed", {
      hint: "a candidate can be run until its score function has ended: wait there for what it starts",
    });
  }

  protected override within(options: RunOptions): RunOptions {
    const { signal } = options;
    return { ...options, signal: signal ? AbortSignal.any([signal, this.#ending.signal]) : this.#ending.signal };
  }

  async #close(): Promise<void> {
    this.#ending.abort(new Error("the view was closed"));
    try {
      await closeModel(this.#session, this.#modelId);
    } finally {
      this.#onClosed();
    }
  }
}
