import type { Readable } from "node:stream";

const KEPT_LINES = 40;

/** The last lines of a log that is being written; draining it keeps its writer from blocking. */
export class LogTail {
  readonly #lines: string[] = [];
  #partial = "";

  constructor(stream: Readable) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => this.add(text));
    stream.on("error", () => {});
  }

  /** The lines so far, oldest first, at most forty. */
  toString(): string {
    return [...this.#lines, ...(this.#partial ? [this.#partial] : [])].join("\n");
  }

  /** Takes what was written elsewhere to be part of it. */
  add(text: string): void {
    const lines = (this.#partial + text).split("\n");
    // A line without end must not grow without end.
    this.#partial = (lines.pop() ?? "").slice(-10_000);
    this.#lines.push(...lines);
    this.#lines.splice(0, Math.max(0, this.#lines.length - KEPT_LINES));
  }
}
