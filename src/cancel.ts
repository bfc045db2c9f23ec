import { PruneError } from "./errors.js";

/** Throws CANCELLED where a signal has fired already. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelledBy(signal);
}

/** The outcome of some work, or CANCELLED as soon as a signal fires: for work that no signal reaches. */
export async function unlessCancelled<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  const settled = new AbortController();
  const cancelled = new Promise<never>((_, reject) => {
    const cancel = (): void => reject(cancelledBy(signal));
    if (signal.aborted) cancel();
    signal.addEventListener("abort", cancel, { once: true, signal: settled.signal });
  });
  try {
    return await Promise.race([work, cancelled]);
  } finally {
    settled.abort();
  }
}

function cancelledBy({ reason }: AbortSignal): PruneError {
  return new PruneError("CANCELLED", "cancelled by the caller", { cause: reason });
}
