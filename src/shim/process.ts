import { rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { execa } from "execa";
import type { PruneError } from "../errors.js";
import { checkAllowName } from "../pythonRef.js";
import { type Child, childEnvironment, errorWithLog, signalGroup, stopChild, wordsOf } from "./child.js";
import { type Endpoint, socketEndpoint } from "./endpoint.js";
import { LogTail } from "./logTail.js";
import { TIMEOUTS, type Timeouts } from "./options.js";
import { findPython } from "./python.js";
import { awaitReadiness } from "./readiness.js";
import { makeSocketFolder, SOCKET } from "./socketFolder.js";
import { Token } from "./token.js";

/** How to start a shim. */
export interface SpawnOptions {
  /** The Python interpreter. Default: PRUNEBRIDGE_PYTHON, else the environment of `npm run setup`, else `python3`. */
  readonly python?: string;
  /** Variables added to the environment that the shim inherits, CUDA_VISIBLE_DEVICES for one. */
  readonly env?: Readonly<Record<string, string>>;
  /**
   * Python functions that may be called by name: whole modules, `package.module`, with the functions that they define themselves, and single
   * functions, `package.module:function`, which the module may have from another one. Nothing else is imported. Default: none. Modules are
   * found as Python finds them: beside the working directory, PYTHONPATH in `env`, installed. A folder, whose path begins with `/`, `./` or
   * `../`, allows all modules in it, or the one package that it is, and has them found.
   */
  readonly allowPython?: readonly string[];
  /** Folders that checkpoints are read from and written to: what lies outside of them, the shim leaves alone. Default: all that the user may use. */
  readonly roots?: readonly string[];
  /** Called with the shim's log as it is written. Default: only the tail is kept, for errors. */
  readonly onLog?: (text: string) => void;
  /** Limits on waiting, in milliseconds, where the defaults do not fit. */
  readonly timeouts?: Partial<Timeouts>;
}

const KILLED = "a kill by SIGKILL is often the kernel's, for want of memory";

/** A shim that this process started and that ends with it. */
export class ShimProcess {
  readonly endpoint: Endpoint;
  /** Resolves with the error to give callers, once the process has ended. */
  readonly died: Promise<PruneError>;
  /** The Python functions and modules that it may call. */
  readonly allowPython: readonly string[];
  readonly #child: ShimChild;
  readonly #folder: string;
  readonly #patience: number;
  #stopping: Promise<void> | undefined;

  private constructor(child: ShimChild, folder: string, endpoint: Endpoint, { allowPython = [], timeouts }: SpawnOptions) {
    this.#child = child;
    this.#folder = folder;
    this.#patience = timeouts?.terminate ?? TIMEOUTS.terminate;
    this.endpoint = endpoint;
    this.allowPython = allowPython;
    this.died = child.exited.then((how) => errorWithLog("SHIM_DIED", `the shim ended unasked (${how})`, child.log, KILLED));
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
      await awaitReadiness(child, firstLine(child.readyLines), options.timeouts?.spawn ?? TIMEOUTS.spawn);
      return new ShimProcess(child, folder, endpoint, options);
    } catch (error) {
      signalGroup(child, "SIGKILL");
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
    await stopChild(this.#child, this.#patience);
    await rm(this.#folder, { recursive: true, force: true });
  }
}

interface ShimChild extends Child {
  readonly readyLines: Readable;
  /** Open for as long as the shim shall live: its end is the shim's. */
  readonly lifeline: Writable;
}

function startChild(python: string, socket: string, token: Token, options: SpawnOptions): ShimChild {
  const args = ["-m", "prunebridge_shim", "serve", "--socket", socket, "--ready-fd", "3", "--parent-pid", String(process.pid)];
  for (const root of options.roots ?? []) args.push("--root", root);
  for (const name of options.allowPython ?? []) args.push("--allow-python", name);
  const child = execa(python, args, {
    stdio: ["pipe", "ignore", "pipe", "pipe"],
    env: childEnvironment(options.env),
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
    exited: child.then(wordsOf),
  };
}

async function firstLine(stream: Readable): Promise<string> {
  for await (const line of createInterface({ input: stream })) return line;
  // The stream's end comes with the process's: its exit tells more.
  return new Promise<never>(() => {});
}
