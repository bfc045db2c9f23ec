import { PruneError } from "./errors.js";

/** Throws CANCELLED where a signal has fired already. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelledBy(signal);
}

const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls back once a signal fires, or at once where it has; gives what undoes that. */
export function onAbort(signal: AbortSignal, call: () => void): () => void {
  if (signal.aborted) {
    call();
    return () => {};
  }
  const calls = waiting.get(signal) ?? listen(signal);
  // A function may be given twice.
  const entry = (): void => call();
  calls.add(entry);
  return () => void calls.delete(entry);
}

// One listener for all that wait: Node warns of a leak where a signal has more than ten.
function listen(signal: AbortSignal): Set<() => void> {
  const calls = new Set<() => void>();
  waiting.set(signal, calls);
  signal.addEventListener(
    "abort",
    () => {
      for (const call of calls) call();
    },
    { once: true },
  );
  return calls;
}

/** The outcome of some work, or CANCELLED as soon as a signal fires: for work that no signal reaches. */
export async function unlessCancelled<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  let undo = (): void => {};
  const cancelled = new Promise<never>((_, reject) => {
    undo = onAbort(signal, () => reject(cancelledBy(signal)));
  });
  try {
    return await Promise.race([work, cancelled]);
  } finally {
    undo();
  }
}

function cancelledBy({ reason }: AbortSignal): PruneError {
  return new PruneError("CANCELLED", "cancelled by the caller", { cause: reason });
}
