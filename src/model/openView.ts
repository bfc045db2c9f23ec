import { PruneError } from "../errors.js";
import type { RunOptions } from "../progress.js";
import { closeModel } from "../shim/modelWork.js";
import type { ShimSession } from "../shim/session.js";

/** A view that a shim has open until it is closed, which ends what still runs on it. */
export class OpenView {
  readonly #session: ShimSession;
  readonly #modelId: string;
  readonly #onClosed: () => void;
  readonly #ending = new AbortController();
  #closed: Promise<void> | undefined;

  constructor(session: ShimSession, modelId: string, onClosed: () => void) {
    this.#session = session;
    this.#modelId = modelId;
    this.#onClosed = onClosed;
  }

  /** The shim's id of it. Throws BAD_OPTION once it was closed. */
  get modelId(): string {
    if (!this.#closed) return this.#modelId;
    throw new PruneError("BAD_OPTION", "this view of a model was closed", {
      hint: "a candidate can be run until its score function has ended: wait there for what it starts",
    });
  }

  /** Options that end with the view, too. */
  within(options: RunOptions): RunOptions {
    const { signal } = options;
    return { ...options, signal: signal ? AbortSignal.any([signal, this.#ending.signal]) : this.#ending.signal };
  }

  /** Safe to call twice. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
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
