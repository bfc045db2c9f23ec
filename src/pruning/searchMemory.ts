import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { removeLeftovers } from "../checkpoint/atomicFile.js";
import { PLAN_FILE } from "../checkpoint/planFile.js";
import {
  emptyState,
  type HistoryEntry,
  readSearchState,
  SEARCH_FILE,
  type SearchState,
  writeSearchState,
} from "../checkpoint/searchState.js";
import { checkWritable } from "../checkpoint/staging.js";
import type { Candidate } from "../policy/search/search.js";

type Sizes = Candidate["exportConfig"];

/** What earlier runs on the same network found out: kept in a checkpoint folder, or only for this run. */
export class SearchMemory {
  readonly #path: string | undefined;
  #state: SearchState;

  private constructor(path: string | undefined, state: SearchState) {
    this.#path = path;
    this.#state = state;
  }

  /** Reads what a checkpoint folder holds. Throws PATH_DENIED where it cannot be written, CHECKPOINT_MISMATCH where it is of another network. */
  static async open(folder: string | undefined, fingerprint: string | undefined): Promise<SearchMemory> {
    const known = fingerprint ?? "";
    if (folder === undefined) return new SearchMemory(undefined, emptyState(known));
    await checkWritable(join(folder, PLAN_FILE));
    await removeLeftovers(folder);
    const path = join(folder, SEARCH_FILE);
    return new SearchMemory(path, await readSearchState(path, known));
  }

  /** What every run came to, the last one at the end. */
  get history(): readonly HistoryEntry[] {
    return this.#state.history;
  }

  /** Takes note of what a search found; kept with what comes of it. */
  propose(candidates: readonly Candidate[]): void {
    const noted = candidates.map(({ exportConfig, costs }) => ({ exportConfig: { ...exportConfig }, costs: { ...costs } }));
    this.#state = { ...this.#state, candidates: noted };
  }

  /** The score of a candidate that was evaluated before, in the same context. */
  recall(context: string, sizes: Sizes): number | undefined {
    const wanted = keyOf(sizes);
    return this.#state.scored.find((entry) => entry.context === context && keyOf(entry.exportConfig) === wanted)?.score;
  }

  /** Keeps a candidate's score. */
  async record(context: string, sizes: Sizes, score: number, seconds: number): Promise<void> {
    const entry = { context, exportConfig: { ...sizes }, score, seconds };
    await this.#write({ ...this.#state, scored: [...this.#state.scored, entry] });
  }

  /** Keeps what a run came to, unless the last one came to the same: a run that is repeated after it ended adds nothing. */
  async conclude(entry: HistoryEntry): Promise<void> {
    if (isDeepStrictEqual(this.#state.history.at(-1), entry)) return;
    await this.#write({ ...this.#state, history: [...this.#state.history, entry] });
  }

  async #write(state: SearchState): Promise<void> {
    this.#state = state;
    if (this.#path !== undefined) await writeSearchState(this.#path, state);
  }
}

function keyOf(sizes: Readonly<Partial<Record<string, number>>>): string {
  return JSON.stringify(Object.entries(sizes).sort(([a], [b]) => (a < b ? -1 : 1)));
}
