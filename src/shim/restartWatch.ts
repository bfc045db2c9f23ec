import { type ErrorCode, PruneError } from "../errors.js";
import { DeathWatch } from "./deathWatch.js";

// What a call can look like that reaches a shim which does not know what it speaks of.
const MAYBE_RESTART: readonly ErrorCode[] = ["SHIM_UNREACHABLE", "SHIM_STALLED", "INTERNAL", "FEED_LOST"];

/** Finds out whether an attached shim has started anew, where a call fails in a way that this explains. */
export class RestartWatch {
  readonly gone: readonly ErrorCode[] = ["SHIM_RESTARTED", "SHIM_SHUTTING_DOWN"];
  readonly #bootId: string;
  readonly #askBootId: () => Promise<string>;
  // Its process is another's: nobody tells of its death.
  readonly #connection = new DeathWatch(new Promise(() => {}), 0);

  /**
   * @param bootId - what the shim said at first
   * @param askBootId - asks it again
   */
  constructor(bootId: string, askBootId: () => Promise<string>) {
    this.#bootId = bootId;
    this.#askBootId = askBootId;
  }

  /** Ends whatever waits, and all that comes after. */
  end(error: PruneError): void {
    this.#connection.end(error);
  }

  /** The outcome of some work, as {@link DeathWatch.guard} gives it; SHIM_RESTARTED where it failed of that. */
  async guard<T>(work: (abandoned: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await this.#connection.guard(work);
    } catch (error) {
      throw error instanceof PruneError && MAYBE_RESTART.includes(error.code) ? await this.#explain(error) : error;
    }
  }

  async #explain(cause: PruneError): Promise<PruneError> {
    // A shim that cannot be asked has its own error.
    const bootId = await this.#askBootId().catch(() => this.#bootId);
    if (bootId === this.#bootId) return cause;
    return new PruneError("SHIM_RESTARTED", "the shim was started anew: what was open and what ran in it is gone", {
      hint: "attach and start again; what was stored is taken up",
      cause,
    });
  }
}
