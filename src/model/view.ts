import type { PlanFile } from "../checkpoint/planFile.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import { closeModel } from "../shim/modelWork.js";
import type { ShimSession } from "../shim/session.js";
import { Runner } from "./runner.js";

/** A model as a plan would make it, looked at on the model's own weights, which stay as they are. Made by {@link Model.view}. */
export class ModelView extends Runner implements AsyncDisposable {
  readonly #session: ShimSession;
  readonly #modelId: string;
  readonly plan: PlanFile;

  /** @internal */
  constructor(session: ShimSession, modelId: string, plan: PlanFile) {
    super(session);
    this.#session = session;
    this.#modelId = modelId;
    this.plan = plan;
  }

  /** The sizes that the plan makes. */
  get hyperparameters(): Hyperparameters {
    return this.plan.child.hyperparameters;
  }

  /** Ends the view. */
  async close(): Promise<void> {
    await closeModel(this.#session, this.#modelId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected modelId(): Promise<string> {
    return Promise.resolve(this.#modelId);
  }
}
