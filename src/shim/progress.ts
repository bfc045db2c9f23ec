import type { Progress } from "../progress.js";

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
