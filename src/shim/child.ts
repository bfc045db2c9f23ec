import { setTimeout as sleep } from "node:timers/promises";
import type { Result } from "execa";
import { PruneError } from "../errors.js";
import type { LogTail } from "./logTail.js";
import { SHIM_PATH } from "./python.js";

/** A Python process that was started from here, in a group of its own. */
export interface Child {
  readonly pid: number;
  readonly python: string;
  readonly log: LogTail;
  /** Resolves with how the process ended, in words. */
  readonly exited: Promise<string>;
}

/** The environment of a child: PYTHONPATH begins with the shim's own. */
export function childEnvironment(env: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { ...env, PYTHONPATH: [SHIM_PATH, env["PYTHONPATH"] ?? process.env["PYTHONPATH"]].filter(Boolean).join(":") };
}

/** How a process ended, in words. */
export function wordsOf({ signal, exitCode, originalMessage }: Pick<Result, "signal" | "exitCode" | "originalMessage">): string {
  return signal ?? (exitCode === undefined ? (originalMessage ?? "never started") : `exit code ${exitCode}`);
}

/** Asks a child to end, waits, and kills its group where it does not within `patience` milliseconds. */
export async function stopChild(child: Child, patience: number): Promise<void> {
  // A process that was stopped heeds nothing before it goes on.
  signalGroup(child, "SIGCONT");
  signalGroup(child, "SIGTERM");
  const waiting = new AbortController();
  const timeUp = sleep(patience, "late", { signal: waiting.signal, ref: false }).catch(() => "ended");
  if ((await Promise.race([child.exited, timeUp])) === "late") signalGroup(child, "SIGKILL");
  waiting.abort();
  await child.exited;
}

/** Sends a signal to a child and what it started, unless it has ended. */
export function signalGroup({ pid }: Child, signal: NodeJS.Signals): void {
  if (pid === 0) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended already.
  }
}

/** An error with the end of a child's log. */
export function errorWithLog(code: PruneError["code"], what: string, log: LogTail, hint: string): PruneError {
  const tail = log.toString();
  return new PruneError(code, `${what}${tail ? `; the end of its log:\n${indent(tail)}` : "; its log is empty"}`, { hint });
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}
