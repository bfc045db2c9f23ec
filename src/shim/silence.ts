import { PruneError } from "../errors.js";

/** How long a shim has said nothing, over as many streams and connections as it takes. */
export class Silence {
  readonly #limit: number;
  #since = performance.now();

  /** @param limit - in milliseconds */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Milliseconds until it is too long. */
  get left(): number {
    return Math.max(0, this.#since + this.#limit - performance.now());
  }

  /** Says that something came. */
  end(): void {
    this.#since = performance.now();
  }

  /** The error for a silence that was too long. */
  error(cause: unknown): PruneError {
    return new PruneError("SHIM_STALLED", `the shim was silent for ${this.#limit / 1000} s`, { hint: "see its log", cause });
  }
}
