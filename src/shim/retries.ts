import { setTimeout as sleep } from "node:timers/promises";
import { RETRY_PAUSES } from "./options.js";
import { fromCallError, isUnavailable } from "./translate.js";

/** The tries of one piece of work while the shim is unavailable. Nothing else is tried again. */
export class Retries {
  #made = 0;

  /** Resolves when it is time for another try; throws the error as users see it where there is none. */
  async pause(error: unknown): Promise<void> {
    const pause = RETRY_PAUSES[this.#made];
    if (pause === undefined || !isUnavailable(error)) throw fromCallError(error);
    this.#made += 1;
    await sleep(pause);
  }

  /** Says that there was a sign of life: what fails next is tried as often again. */
  reset(): void {
    this.#made = 0;
  }
}
