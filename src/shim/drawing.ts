import { AsyncLocalStorage } from "node:async_hooks";
import { PruneError } from "../errors.js";

const current = new AsyncLocalStorage<Drawing>();

/**
 * A caller's own code, a data loader or a forward loop, that brings the batches of an operation. The thread of its shim's models is taken
 * until it is through: work on them that it waits for would wait for it.
 */
export class Drawing {
  readonly #owner: object;
  readonly #outer = current.getStore();
  #active = true;

  /** @param owner - the session whose models are taken */
  constructor(owner: object) {
    this.#owner = owner;
  }

  /** Runs some of the code; what that starts is known to come from it. */
  run<T>(code: () => T): T {
    return current.run(this, code);
  }

  /** Says that the operation needs no more batches. */
  end(): void {
    this.#active = false;
  }

  /** Throws BAD_OPTION where it is called from within code that brings batches to the same owner. */
  static refuse(owner: object): void {
    for (let drawing = current.getStore(); drawing; drawing = drawing.#outer) {
      if (!drawing.#active || drawing.#owner !== owner) continue;
      throw new PruneError(
        "BAD_OPTION",
        "a data loader or forward loop runs a model of the shim that waits for its next batch: both would wait for ever",
        {
          hint: "in a forward loop call the model that the loop is given; what a data loader needs of a model, compute before, or with another Bridge",
        },
      );
    }
  }
}
