import type { RunOptions } from "../progress.js";
import type { ShimSession } from "../shim/session.js";
import { NetworkRunner } from "./networkRunner.js";
import { OpenView } from "./openView.js";

/** A network as it would be with some of its channels, looked at while the network itself stays as it is. Made by {@link NetworkModel.view}. */
export class NetworkView extends NetworkRunner implements AsyncDisposable {
  readonly #view: OpenView;

  /** @internal */
  constructor(session: ShimSession, modelId: string, onClosed: () => void) {
    super(session);
    this.#view = new OpenView(session, modelId, onClosed);
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
