import { PruneError } from "../../src/errors.js";

/** How often a property is tried: more where time is given for it. */
export const FACTOR = process.env["PRUNEBRIDGE_SOAK"] ? 20 : 1;

/** How long a property may take, on a machine that does other things as well. */
export const TIMEOUT_MS = 600_000 * FACTOR;

/** No input that a test makes takes more of the processor. */
const MOST_CPU_MS = 3000;
const MOST_CHARACTERS = 40_000;

/** How many inputs of a property were taken: one that refuses nearly all of them tries nothing behind its first check. */
export class Tally {
  #taken = 0;
  #tried = 0;

  count<T>(outcome: Outcome<T>): Outcome<T> {
    this.#tried += 1;
    if (!outcome.refused) this.#taken += 1;
    return outcome;
  }

  get share(): number {
    return this.#taken / this.#tried;
  }
}

/** What became of an input: a value, or the error that says what is wrong with it. */
export type Outcome<T> = { readonly value: T; readonly refused?: undefined } | { readonly value?: undefined; readonly refused: PruneError };

/** Runs what takes an input. Fails where that ends in anything but a value or a PruneError, takes too long, or says too much. */
export function outcomeOf<T>(take: () => T): Outcome<T> {
  const began = process.cpuUsage();
  try {
    return { value: take() };
  } catch (error) {
    return { refused: checked(error) };
  } finally {
    checkTime(began);
  }
}

/** Like {@link outcomeOf}, for what reads files. */
export async function outcomeOfReading<T>(take: () => Promise<T>): Promise<Outcome<T>> {
  const began = process.cpuUsage();
  try {
    return { value: await take() };
  } catch (error) {
    return { refused: checked(error) };
  } finally {
    checkTime(began);
  }
}

function checked(error: unknown): PruneError {
  if (!(error instanceof PruneError)) throw new Error("an input ended in what is no PruneError", { cause: error });
  if (error.message.length > MOST_CHARACTERS) throw new Error(`an error of ${error.message.length} characters`);
  return error;
}

function checkTime(began: NodeJS.CpuUsage): void {
  const { user, system } = process.cpuUsage(began);
  const ms = (user + system) / 1000;
  if (ms > MOST_CPU_MS) throw new Error(`an input took ${ms} ms`);
}
