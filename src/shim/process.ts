import { rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { checkAllowName } from "../pythonRef.js";
import { type Endpoint, socketEndpoint } from "./endpoint.js";
import { LogTail } from "./logTail.js";
import { TIMEOUTS, type Timeouts } from "./options.js";
import { findPython, SHIM_PATH } from "./python.js";
import { makeSocketFolder, SOCKET } from "./socketFolder.js";
import { Token } from "./token.js";
import { codeOfReasonName } from "./translate.js";

/** How to start a shim. */
export interface SpawnOptions {
  /** The Python interpreter. Default: PRUNEBRIDGE_PYTHON, else the environment of `npm run setup`, else `python3`. */
  readonly python?: string;
  /** Variables added to the environment that the shim inherits, CUDA_VISIBLE_DEVICES for one. */
  readonly env?: Readonly<Record<string, string>>;
  /**
   * Python functions that may be called by name: whole modules, `package.module`, with the functions that they define themselves, and single
   * functions, `package.module:function`, which the module may have from another one. Nothing else is imported. Default: none. Modules are
   * found as Python finds them: beside the working directory, PYTHONPATH in `env`, installed.
   */
  readonly allowPython?: readonly string[];
  /** Folders that checkpoints are read from and written to: what lies outside of them, the shim leaves alone. Default: all that the user may use. */
  readonly roots?: readonly string[];
  /** Called with the shim's log as it is written. Default: only the tail is kept, for errors. */
  readonly onLog?: (text: string) => void;
  /** Limits on waiting, in milliseconds, where the defaults do not fit. */
  readonly timeouts?: Partial<Timeouts>;
}

const readiness = z.discriminatedUnion("event", [
  z.looseObject({ event: z.literal("ready") }),
  z.looseObject({ event: z.literal("failed"), reason: z.string(), message: z.string(), hint: z.string().default("") }),
]);

/** A shim that this process started and that ends with it. */
export class ShimProcess {
  readonly endpoint: Endpoint;
  /** Resolves with the error to give callers, once the process has ended. */
  readonly died: Promise<PruneError>;
  /** The Python functions and modules that it may call. */
  readonly allowPython: readonly string[];
  readonly #child: Child;
  readonly #folder: string;
  readonly #patience: number;
  #stopping: Promise<void> | undefined;

  private constructor(child: Child, folder: string, endpoint: Endpoint, { allowPython = [], timeouts }: SpawnOptions) {
    this.#child = child;
    this.#folder = folder;
    this.#patience = timeouts?.terminate ?? TIMEOUTS.terminate;
    this.endpoint = endpoint;
    this.allowPython = allowPython;
    this.died = child.exited.then((how) => deathError("SHIM_DIED", `the shim ended unasked (${how})`, child.log));
  }

  /** The shim's socket, `unix:PATH`. */
  get address(): string {
    return this.endpoint.address;
  }

  /** The shim's process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /**
   * Starts a shim on a unix socket in a private folder and waits for its readiness line.
   *
   * @throws PruneError BAD_OPTION, SHIM_START_FAILED or MISSING_DEPENDENCY
   */
  static async start(options: SpawnOptions = {}): Promise<ShimProcess> {
    options.allowPython?.forEach(checkAllowName);
    const folder = await makeSocketFolder();
    const socket = join(folder, SOCKET);
    const endpoint = socketEndpoint(socket, Token.random());
    const child = startChild(findPython(options.python), socket, endpoint.token, options);
    try {
      await awaitReadiness(child, options.timeouts?.spawn ?? TIMEOUTS.spawn);
      return new ShimProcess(child, folder, endpoint, options);
    } catch (error) {
      killGroup(child, "SIGKILL");
      await child.exited;
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Asks the process to end, waits, and kills its group where it does not. Safe to call twice. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    // A process that was stopped heeds nothing before it goes on.
    killGroup(this.#child, "SIGCONT");
    killGroup(this.#child, "SIGTERM");
    const patience = new AbortController();
    const timeUp = sleep(this.#patience, "late", { signal: patience.signal, ref: false }).catch(() => "ended");
    if ((await Promise.race([this.#child.exited, timeUp])) === "late") killGroup(this.#child, "SIGKILL");
    patience.abort();
    await this.#child.exited;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

interface Child {
  readonly pid: number;
  readonly python: string;
  readonly log: LogTail;
  readonly readyLines: Readable;
  /** Open for as long as the shim shall live: its end is the shim's. */
  readonly lifeline: Writable;
  /** Resolves with how the process ended, in words. */
  readonly exited: Promise<string>;
}

function startChild(python: string, socket: string, token: Token, options: SpawnOptions): Child {
  const args = ["-m", "prunebridge_shim", "serve", "--socket", socket, "--ready-fd", "3", "--parent-pid", String(process.pid)];
  for (const root of options.roots ?? []) args.push("--root", root);
  for (const name of options.allowPython ?? []) args.push("--allow-python", name);
  const pythonPath = [SHIM_PATH, options.env?.["PYTHONPATH"] ?? process.env["PYTHONPATH"]].filter(Boolean).join(":");
  const child = execa(python, args, {
    stdio: ["pipe", "ignore", "pipe", "pipe"],
    env: { ...options.env, PYTHONPATH: pythonPath },
    buffer: false,
    reject: false,
    // A group of its own, so that workers end with it and Ctrl-C reaches it through us.
    detached: true,
    cleanup: false,
  });
  child.stdin.on("error", () => {});
  child.stdin.write(`${token.reveal()}\n`);
  if (options.onLog) child.stderr.on("data", (data: Buffer | string) => options.onLog?.(String(data)));
  return {
    pid: child.pid ?? 0,
    python,
    log: new LogTail(child.stderr),
    readyLines: child.stdio[3] as Readable, // execa types a fourth stream by direction only
    lifeline: child.stdin,
    exited: child.then((result) => {
      if (result.signal) return result.signal;
      return result.exitCode === undefined ? (result.originalMessage ?? "never started") : `exit code ${result.exitCode}`;
    }),
  };
}

async function awaitReadiness(child: Child, timeout: number): Promise<void> {
  const patience = new AbortController();
  const line = await Promise.race([
    firstLine(child.readyLines),
    child.exited.then((how) => {
      throw deathError("SHIM_START_FAILED", `${child.python} ended before the shim was ready (${how})`, child.log);
    }),
    sleep(timeout, undefined, { signal: patience.signal }).then(
      () => {
        throw deathError("SHIM_START_FAILED", `${child.python} was not ready after ${timeout / 1000} s`, child.log);
      },
      () => new Promise<never>(() => {}),
    ),
  ]).finally(() => patience.abort());
  checkReady(line, child);
}

async function firstLine(stream: Readable): Promise<string> {
  for await (const line of createInterface({ input: stream })) return line;
  // The stream's end comes with the process's: its exit tells more.
  return new Promise<never>(() => {});
}

function checkReady(line: string, child: Child): void {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch {
    message = undefined;
  }
  const parsed = readiness.safeParse(message);
  if (!parsed.success)
    throw deathError("SHIM_START_FAILED", `${child.python} sent a readiness line that is none: ${line.slice(0, 200)}`, child.log);
  if (parsed.data.event === "ready") return;
  const { reason, message: text, hint } = parsed.data;
  throw new PruneError(codeOfReasonName(reason), text, hint ? { hint } : {});
}

function deathError(code: "SHIM_DIED" | "SHIM_START_FAILED", what: string, log: LogTail): PruneError {
  const tail = log.toString();
  return new PruneError(code, `${what}${tail ? `; the end of its log:\n${indent(tail)}` : "; its log is empty"}`, {
    hint:
      code === "SHIM_DIED"
        ? "a kill by SIGKILL is often the kernel's, for want of memory"
        : "it needs Python 3.10 with grpcio, protobuf, safetensors and numpy; name one with PRUNEBRIDGE_PYTHON",
  });
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}

function killGroup(child: Child, signal: NodeJS.Signals): void {
  if (child.pid === 0) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended already.
  }
}
