import type { Ask } from "./feed.js";

/** Asks that are pushed by one side and drawn by the other, one after the other. */
export class AskQueue implements AsyncIterator<Ask, undefined, void> {
  readonly #waiting: { readonly ask: Ask; readonly onDrawn: () => void }[] = [];
  #failure: { readonly error: unknown } | undefined;
  #ended = false;
  #wake: () => void = () => {};

  /** Adds an ask; `onDrawn` is called once there is room for it. */
  push(ask: Ask, onDrawn: () => void): void {
    this.#waiting.push({ ask, onDrawn });
    this.#wake();
  }

  /** Says that nothing follows what was pushed. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Has the drawing side fail, whatever was pushed. */
  fail(error: unknown): void {
    this.#failure = { error };
    this.#wake();
  }

  async next(): Promise<IteratorResult<Ask, undefined>> {
    while (this.#waiting.length === 0 && !this.#ended && !this.#failure) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure) throw this.#failure.error;
    const first = this.#waiting.shift();
    if (!first) return { done: true, value: undefined };
    first.onDrawn();
    return { done: false, value: first.ask };
  }
}
