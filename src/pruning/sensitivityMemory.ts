import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { removeLeftovers } from "../checkpoint/atomicFile.js";
import {
  checkSubject,
  type NetworkHistoryEntry,
  readSensitivityState,
  SENSITIVITY_FILE,
  type SensitivityState,
  type SensitivitySubject,
  writeSensitivityState,
} from "../checkpoint/sensitivityState.js";
import { checkWritable } from "../checkpoint/staging.js";
import type { Sensitivity } from "../policy/sensitivity/sensitivity.js";

/** The sensitivities that earlier runs measured: kept in a checkpoint folder, or only for this run. */
export class SensitivityMemory {
  readonly #path: string | undefined;
  #state: SensitivityState | undefined;
  #subject: SensitivitySubject | undefined;

  private constructor(path: string | undefined, state: SensitivityState | undefined) {
    this.#path = path;
    this.#state = state;
  }

  /** Reads what a checkpoint folder holds. Throws PATH_DENIED where it cannot be written, CHECKPOINT_MISMATCH where the file is malformed. */
  static async open(folder: string | undefined): Promise<SensitivityMemory> {
    if (folder === undefined) return new SensitivityMemory(undefined, undefined);
    const path = join(folder, SENSITIVITY_FILE);
    await checkWritable(path);
    await removeLeftovers(folder);
    return new SensitivityMemory(path, await readSensitivityState(path));
  }

  /** Throws CHECKPOINT_MISMATCH where what is known is of something else, as far as it is told. */
  check(subject: Partial<SensitivitySubject>): void {
    if (this.#path !== undefined && this.#state) checkSubject(this.#path, this.#state.subject, subject);
  }

  /** Says what is measured from now on. Throws as {@link check} does. */
  begin(subject: SensitivitySubject): void {
    this.check(subject);
    this.#subject = subject;
  }

  /** What was measured before. */
  get known(): Sensitivity | undefined {
    return this.#state && { originalScore: this.#state.originalScore, degradations: this.#state.degradations };
  }

  /** What every run came to, the last one at the end. */
  get history(): readonly NetworkHistoryEntry[] {
    return this.#state?.history ?? [];
  }

  /** Keeps what has been measured so far. */
  async record({ originalScore, degradations }: Sensitivity): Promise<void> {
    if (!this.#subject) return;
    const measured = Object.fromEntries(Object.entries(degradations).map(([name, costs]) => [name, [...costs]]));
    await this.#write({ subject: this.#subject, originalScore, degradations: measured, history: [...this.history] });
  }

  /** Keeps what a run came to, unless the last one came to the same: a run that is repeated after it ended adds nothing. */
  async conclude(entry: NetworkHistoryEntry): Promise<void> {
    if (!this.#state || isDeepStrictEqual(this.history.at(-1), entry)) return;
    await this.#write({ ...this.#state, history: [...this.history, entry] });
  }

  async #write(state: SensitivityState): Promise<void> {
    this.#state = state;
    if (this.#path !== undefined) await writeSensitivityState(this.#path, state);
  }
}
