import { setTimeout as sleep } from "node:timers/promises";
import type { StartRequest, Succeeded } from "../gen/prunebridge/v1/operation.js";

type Work = NonNullable<StartRequest["work"]>;

/** What a session has in its shim: the operations that run for it, and the models that it opened. */
export class Holdings {
  readonly #cancels = new Set<() => void>();
  readonly #models = new Set<string>();
  #tellIdle: () => void = () => {};

  /** The ids of models that are open. */
  get models(): readonly string[] {
    return [...this.#models];
  }

  /** Notes an operation that runs, and what cancels it; gives what has to be called when it has ended. */
  begin(cancel: () => void): () => void {
    this.#cancels.add(cancel);
    return () => {
      this.#cancels.delete(cancel);
      if (this.#cancels.size === 0) this.#tellIdle();
    };
  }

  /** Notes what work that succeeded has opened or closed. A model's views end with it. */
  note(work: Work, { result }: Succeeded): void {
    if (result?.$case === "modelOpened") this.#models.add(result.value.modelId);
    if (work.$case === "closeModel") this.#models.delete(work.value.modelId);
  }

  /** Cancels all that runs, and waits for its end for a while. */
  async cancelAll(patience: number): Promise<void> {
    if (this.#cancels.size === 0) return;
    const idle = new Promise<void>((resolve) => {
      this.#tellIdle = resolve;
    });
    for (const cancel of this.#cancels) cancel();
    await Promise.race([idle, sleep(patience, undefined, { ref: false })]);
  }
}
