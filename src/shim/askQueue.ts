import type { Ask } from "./feed.js";

/** Asks that are pushed by one side and drawn by the other, one after the other. */
export class AskQueue implements AsyncIterator<Ask, undefined, void> {
  readonly #waiting: { readonly ask: Ask; readonly onSent: () => void }[] = [];
  #failure: { readonly error: unknown } | undefined;
  #ended = false;
  #wake: () => void = () => {};
  #onSent: () => void = () => {};

  /** Adds an ask; `onSent` is called once the next is asked for, so that the memory of this one may be used again. */
  push(ask: Ask, onSent: () => void): void {
    this.#waiting.push({ ask, onSent });
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
    this.#onSent();
    while (this.#waiting.length === 0 && !this.#ended && !this.#failure) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure) throw this.#failure.error;
    const first = this.#waiting.shift();
    if (!first) return { done: true, value: undefined };
    this.#onSent = first.onSent;
    return { done: false, value: first.ask };
  }
}
