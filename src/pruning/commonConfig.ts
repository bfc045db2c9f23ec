import { z } from "zod";
import type { CollectFunc, DataSource } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import { formatIssues } from "../policy/issues.js";
import type { RunOptions } from "../progress.js";
import { isPythonRef, type PythonRef } from "../pythonRef.js";

/** Where a mode tells of what it does, beside progress. */
export interface CommonConfig {
  /** On stderr, or to a function. Default false. */
  readonly verbose?: boolean | ((text: string) => void) | undefined;
}

const isFunction = (value: unknown): boolean => typeof value === "function";
const isIterable = (value: unknown): boolean =>
  typeof value === "object" && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value);

/** A function, here or in Python. */
export function callable<T>(): z.ZodType<T | PythonRef> {
  return z.custom<T | PythonRef>((value) => isFunction(value) || isPythonRef(value), "must be a function or python(...)");
}

/** The options that prune() has in every mode. */
export const commonConfig = {
  dataLoader: z
    .custom<DataSource<never> | PythonRef>(
      (value) => isIterable(value) || isPythonRef(value),
      "must be an iterable or async iterable of batches, or python(...)",
    )
    .optional(),
  collectFunc: callable<CollectFunc<never>>().optional(),
  maxIterDataLoader: z.number().int().positive().optional(),
  checkpoint: z.string().min(1).optional(),
  verbose: z
    .custom<NonNullable<CommonConfig["verbose"]>>(
      (value) => typeof value === "boolean" || isFunction(value),
      "must be true, false or a function",
    )
    .default(false),
  onProgress: z.custom<NonNullable<RunOptions["onProgress"]>>(isFunction, "must be a function").optional(),
  signal: z.instanceof(AbortSignal).optional(),
};

/** The error that says which options of prune() are unknown or malformed. */
export function badConfig(error: z.ZodError, { shape }: z.ZodObject): PruneError {
  return new PruneError("BAD_OPTION", `config: ${formatIssues(error)}`, { hint: `known options: ${Object.keys(shape).join(", ")}` });
}

/** Where `verbose` tells what it tells, if anywhere. */
export function tellerOf(verbose: NonNullable<CommonConfig["verbose"]>): ((text: string) => unknown) | undefined {
  return verbose === true ? (text) => process.stderr.write(`${text}\n`) : verbose || undefined;
}

/** The Python functions that options name. */
export function pythonOf(options: object): PythonRef[] {
  return Object.values(options).filter(isPythonRef);
}
