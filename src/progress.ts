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
