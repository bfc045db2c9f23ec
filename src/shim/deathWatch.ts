import { setTimeout as sleep } from "node:timers/promises";
import { type ErrorCode, PruneError } from "../errors.js";
import { TIMEOUTS } from "./options.js";

// What a call can look like when the process under it dies: its connection breaks before the news comes.
const MAYBE_DEATH: readonly ErrorCode[] = ["SHIM_UNREACHABLE", "SHIM_STALLED", "INTERNAL"];

/** Ends whatever waits for a process when that process ends, with the error that says how it ended. */
export class DeathWatch {
  readonly gone: readonly ErrorCode[] = ["SHIM_DIED", "SHIM_UNREACHABLE", "SHIM_SHUTTING_DOWN"];
  readonly #waiting = new Set<(error: PruneError) => void>();
  readonly #exitNews: number;
  #end: PruneError | undefined;

  /**
   * @param died - resolves with the error to give, once the process has ended
   * @param exitNews - how long a broken connection may precede that, in milliseconds
   */
  constructor(died: Promise<PruneError>, exitNews: number = TIMEOUTS.exitNews) {
    this.#exitNews = exitNews;
    void died.then((error) => this.end(error));
  }

  /** Ends whatever waits, and all that comes after. The first end counts. */
  end(error: PruneError): void {
    this.#end ??= error;
    for (const tell of this.#waiting) tell(this.#end);
    this.#waiting.clear();
  }

  /**
   * The outcome of some work, or the process's death: the latter also where the work failed of it first.
   *
   * @param work - is given a signal that fires when its outcome is known or no longer waited for
   */
  async guard<T>(work: (abandoned: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#end) throw this.#end;
    let tell: (error: PruneError) => void = () => {};
    const end = new Promise<never>((_, reject) => {
      tell = reject;
    });
    this.#waiting.add(tell);
    const abandon = new AbortController();
    try {
      return await Promise.race([work(abandon.signal), end]);
    } catch (error) {
      if (error !== this.#end && error instanceof PruneError && MAYBE_DEATH.includes(error.code)) {
        await Promise.race([end, sleep(this.#exitNews)]);
      }
      throw error;
    } finally {
      this.#waiting.delete(tell);
      abandon.abort();
    }
  }
}
