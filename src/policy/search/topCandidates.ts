import type { Metric } from "./metrics.js";
import type { Candidate } from "./search.js";
import type { MutableCosts, Sizes } from "./walk.js";

/** The k candidates with the highest primary metric; of equals, the one that was found first. */
export class TopCandidates {
  readonly #most: number;
  readonly #primary: Metric;
  readonly #kept: Candidate[] = [];

  constructor(most: number, primary: Metric) {
    this.#most = most;
    this.#primary = primary;
  }

  offer(sizes: Sizes, costs: MutableCosts): void {
    const value = costs[this.#primary];
    const last = this.#kept[this.#most - 1];
    if (last && last.costs[this.#primary] >= value) return;
    const at = this.#kept.findIndex((other) => other.costs[this.#primary] < value);
    this.#kept.splice(at < 0 ? this.#kept.length : at, 0, { exportConfig: { ...sizes }, costs: { ...costs } });
    if (this.#kept.length > this.#most) this.#kept.pop();
  }

  sorted(): readonly Candidate[] {
    return this.#kept;
  }
}
