/** How far a long piece of work is. */
export interface Progress {
  /** What is going on: `loading`, `collecting`, `slicing`, ... */
  readonly phase: string;
  /** In units of `unit`. */
  readonly done: number;
  /** In units of `unit`; 0 when it is not known. */
  readonly total: number;
  /** `batches`, `bytes`, `tensors`, ... */
  readonly unit: string;
  /** Seconds left by the rate so far; undefined when it cannot be told. */
  readonly etaSeconds: number | undefined;
}

/** Options that every long piece of work takes. */
export interface RunOptions {
  /** Ends the work at the next batch or tensor boundary; the promise then rejects with CANCELLED. */
  readonly signal?: AbortSignal | undefined;
  /** Called some times a second. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** Adds what only the sender knows: how many batches there will be, and so the time left. Clocked from the first batch on. */
export function withTotal(report: (progress: Progress) => void, total: () => number | undefined): (progress: Progress) => void {
  let first: { done: number; at: number } | undefined;
  return (progress) => {
    const expected = progress.total === 0 ? total() : undefined;
    if (expected === undefined) return report(progress);
    const now = performance.now();
    first ??= { done: progress.done, at: now };
    const done = progress.done - first.done;
    const etaSeconds = done > 0 ? (((now - first.at) / done) * (expected - progress.done)) / 1000 : undefined;
    report({ ...progress, total: expected, etaSeconds });
  };
}
