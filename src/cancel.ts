import { PruneError } from "./errors.js";

/** Throws CANCELLED where a signal has fired already. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new PruneError("CANCELLED", "cancelled by the caller", { cause: signal.reason });
}
