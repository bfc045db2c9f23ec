import { setTimeout as sleep } from "node:timers/promises";
import type { StartRequest, WatchResponse } from "../gen/prunebridge/v1/operation.js";

type Work = NonNullable<StartRequest["work"]>;

/** The last event of an operation. */
export type Outcome = Exclude<NonNullable<WatchResponse["event"]>, { $case: "progress" }>;

const OPENING: readonly Work["$case"][] = ["openModel", "openNetwork"];

/** What a session has in its shim: the operations that run for it, and the models that it opened. */
export class Holdings {
  readonly #cancels = new Set<() => void>();
  readonly #openings = new Map<string, Work>();
  readonly #models = new Set<string>();
  #tellIdle: () => void = () => {};

  /** The ids of models that are open. */
  get models(): readonly string[] {
    return [...this.#models];
  }

  /** The operations that open a model, and of which nobody knows yet how they ended. */
  get openings(): readonly (readonly [operationId: string, work: Work])[] {
    return [...this.#openings];
  }

  /** Notes an operation that runs, and what cancels it; gives what has to be called when it is watched no more. */
  begin(operationId: string, work: Work, cancel: () => void): () => void {
    if (OPENING.includes(work.$case)) this.#openings.set(operationId, work);
    this.#cancels.add(cancel);
    return () => {
      this.#cancels.delete(cancel);
      if (this.#cancels.size === 0) this.#tellIdle();
    };
  }

  /** Notes how an operation ended, and what it has opened or closed. A model's views end with it. */
  note(operationId: string, work: Work, outcome: Outcome): void {
    this.#openings.delete(operationId);
    if (outcome.$case !== "succeeded") return;
    const { result } = outcome.value;
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
