import { setTimeout as sleep } from "node:timers/promises";
import { type ErrorCode, PruneError } from "../errors.js";
import { TIMEOUTS } from "./options.js";

// What a call can look like when the process under it dies: its connection breaks before the news comes.
const MAYBE_DEATH: readonly ErrorCode[] = ["SHIM_UNREACHABLE", "SHIM_STALLED", "INTERNAL"];

/** Ends whatever waits for a process when that process ends, with the error that says how it ended. */
export class DeathWatch {
  readonly gone: readonly ErrorCode[] = ["SHIM_DIED", "SHIM_UNREACHABLE", "SHIM_SHUTTING_DOWN"];
  readonly #waiting = new Set<(error: PruneError) => void>();
  #death: PruneError | undefined;

  /** @param died - resolves with the error to give, once the process has ended */
  constructor(died: Promise<PruneError>) {
    void died.then((error) => {
      this.#death = error;
      for (const tell of this.#waiting) tell(error);
      this.#waiting.clear();
    });
  }

  /** The outcome of some work, or the process's death: the latter also where the work failed of it first. */
  async guard<T>(work: Promise<T>): Promise<T> {
    let tell: (error: PruneError) => void = () => {};
    const death = new Promise<never>((_, reject) => {
      tell = reject;
    });
    this.#waiting.add(tell);
    if (this.#death) tell(this.#death);
    try {
      return await Promise.race([work, death]);
    } catch (error) {
      if (error !== this.#death && error instanceof PruneError && MAYBE_DEATH.includes(error.code)) {
        await Promise.race([death, sleep(TIMEOUTS.exitNews)]);
      }
      throw error;
    } finally {
      this.#waiting.delete(tell);
    }
  }
}
