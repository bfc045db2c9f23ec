import { randomUUID } from "node:crypto";
import { isPythonRef, type PythonRef } from "../pythonRef.js";

/** A function that says what it is, so that what an earlier run found with it is known to be of the same. */
export interface Identified {
  readonly identify: () => Promise<string>;
}

/**
 * What tells a function from others: what it says itself, a Python function's name, or its text. What it closes over is not seen.
 */
export async function identityOf(given: ((...args: never[]) => unknown) | PythonRef): Promise<string> {
  if (isPythonRef(given)) return given.name;
  if ("identify" in given) return (given as Identified).identify();
  const text = String(given);
  // The text of a bound function tells nothing: it is taken for another one in each run.
  return text.includes("[native code]") ? randomUUID() : text;
}
