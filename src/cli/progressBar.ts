import { SingleBar } from "cli-progress";
import type { Progress } from "../index.js";

const LINE_EVERY_MS = 10_000;

/** Shows progress on stderr: a bar on a terminal, a line now and then elsewhere. */
export class ProgressBar implements Disposable {
  #bar: SingleBar | undefined;
  #phase = "";
  #lastLine = 0;

  /** Takes the next piece of news. */
  readonly update = (progress: Progress): void => {
    if (process.stderr.isTTY) this.#draw(progress);
    else this.#print(progress);
  };

  /** Leaves the bar as it stands. */
  [Symbol.dispose](): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #draw(progress: Progress): void {
    if (progress.phase !== this.#phase) {
      this.#bar?.stop();
      this.#phase = progress.phase;
      this.#bar = new SingleBar({
        format: "{phase} [{bar}] {percentage}% | {amount} | ETA {left}",
        stream: process.stderr,
        hideCursor: true,
        barsize: 30,
      });
      this.#bar.start(progress.total || 1, 0, describe(progress));
    }
    this.#bar?.setTotal(progress.total || 1);
    this.#bar?.update(progress.total ? progress.done : 0, describe(progress));
  }

  #print(progress: Progress): void {
    const now = Date.now();
    if (now - this.#lastLine < LINE_EVERY_MS) return;
    this.#lastLine = now;
    const { phase, amount, left } = describe(progress);
    process.stderr.write(`${phase}: ${amount}, ETA ${left}\n`);
  }
}

function describe({ phase, done, total, unit, etaSeconds }: Progress): { phase: string; amount: string; left: string } {
  const number = (value: number): string => (unit === "bytes" ? `${(value / 1e9).toFixed(2)}` : String(Math.round(value)));
  const amount = `${number(done)}${total ? `/${number(total)}` : ""} ${unit === "bytes" ? "GB" : unit}`;
  return { phase, amount, left: etaSeconds === undefined ? "unknown" : formatSeconds(etaSeconds) };
}

function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}
