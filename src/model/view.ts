import type { PlanFile } from "../checkpoint/planFile.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { RunOptions } from "../progress.js";
import type { ShimSession } from "../shim/session.js";
import { OpenView } from "./openView.js";
import { Runner } from "./runner.js";

/** A model as a plan would make it, looked at on the model's own weights, which stay as they are. Made by {@link Model.view}. */
export class ModelView extends Runner implements AsyncDisposable {
  readonly #view: OpenView;
  readonly plan: PlanFile;

  /** @internal */
  constructor(session: ShimSession, modelId: string, plan: PlanFile, onClosed: () => void) {
    super(session);
    this.#view = new OpenView(session, modelId, onClosed);
    this.plan = plan;
  }

  /** The sizes that the plan makes. */
  get hyperparameters(): Hyperparameters {
    return this.plan.child.hyperparameters;
  }

  /** Ends the view, and what still runs on it. Safe to call twice. */
  close(): Promise<void> {
    return this.#view.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected async modelId(): Promise<string> {
    return this.#view.modelId;
  }

  protected override within(options: RunOptions): RunOptions {
    return this.#view.within(options);
  }
}
