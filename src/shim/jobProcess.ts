import { rm, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { execa } from "execa";
import { z } from "zod";
import type { PruneError } from "../errors.js";
import { type Child, childEnvironment, errorWithLog, stopChild, wordsOf } from "./child.js";
import { type Endpoint, socketEndpoint } from "./endpoint.js";
import { LogTail } from "./logTail.js";
import { TIMEOUTS, type Timeouts } from "./options.js";
import { findPython } from "./python.js";
import { awaitReadiness, isReadiness, parseJson } from "./readiness.js";
import { makeSocketFolder, SOCKET, TOKEN_FILE } from "./socketFolder.js";
import { Token } from "./token.js";

/** What a job runs, how many ranks do, and what surrounds them. */
export interface JobCommand {
  readonly ranks: number;
  /** The shim's arguments on each rank, but for where rank 0 listens and its token. */
  readonly args: readonly string[];
  readonly python?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly onLog?: ((text: string) => void) | undefined;
  readonly timeouts?: Partial<Timeouts> | undefined;
}

const ranksFailed = z.looseObject({
  event: z.literal("ranks_failed"),
  ranks: z.array(z.looseObject({ rank: z.number(), exit: z.number() })).min(1),
});

/** Which ranks failed, and with which exit codes: negative ones are signals. */
type FailedRanks = z.infer<typeof ranksFailed>["ranks"];

/** A job on this machine whose ranks this process started, and which end with it. */
export class JobProcess {
  readonly endpoint: Endpoint;
  /** Resolves with the error to give callers, once the job has ended. */
  readonly died: Promise<PruneError>;
  /** A job calls no Python functions. */
  readonly allowPython: readonly string[] = [];
  readonly #child: Job;
  readonly #folder: string;
  readonly #patience: number;
  #stopping: Promise<void> | undefined;

  private constructor(child: Job, folder: string, endpoint: Endpoint, timeouts: JobCommand["timeouts"]) {
    this.#child = child;
    this.#folder = folder;
    this.endpoint = endpoint;
    // torchrun gives its ranks 30 s, and must not be killed before them.
    this.#patience = TIMEOUTS.terminate + (timeouts?.terminate ?? TIMEOUTS.terminate);
    this.died = child.exited.then((how) => deathOf(child, how));
  }

  /** The process id of what started the ranks. */
  get pid(): number {
    return this.#child.pid;
  }

  /**
   * Starts the ranks, with rank 0 on a unix socket in a private folder, and waits until they are ready.
   *
   * @throws PruneError SHIM_START_FAILED, MISSING_DEPENDENCY, or what rank 0 says went wrong
   */
  static async start(command: JobCommand): Promise<JobProcess> {
    const folder = await makeSocketFolder();
    const endpoint = socketEndpoint(join(folder, SOCKET), Token.random());
    const tokenFile = join(folder, TOKEN_FILE);
    try {
      await writeFile(tokenFile, endpoint.token.reveal(), { mode: 0o600 });
      const child = startJob(command, [...command.args, "--listen", endpoint.address, "--token-file", tokenFile]);
      try {
        const timeout = command.timeouts?.launch ?? TIMEOUTS.launch;
        await awaitReadiness(child, child.readiness, timeout, () => lossOf(child, "SHIM_START_FAILED"));
        // Rank 0 has read it.
        await rm(tokenFile);
      } catch (error) {
        await stopChild(child, TIMEOUTS.terminate);
        throw error;
      }
      return new JobProcess(child, folder, endpoint, command.timeouts);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Asks all ranks to end, and waits. Safe to call twice. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    await stopChild(this.#child, this.#patience);
    await rm(this.#folder, { recursive: true, force: true });
  }
}

interface Job extends Child {
  /** Resolves with the readiness line, if one comes. */
  readonly readiness: Promise<string>;
  readonly failedRanks: () => FailedRanks | undefined;
}

function startJob({ ranks, python: asked, env, onLog }: JobCommand, command: readonly string[]): Job {
  const python = findPython(asked);
  const flags = ["--parent-pid", String(process.pid), "--nproc-per-node", String(ranks)];
  const child = execa(python, ["-m", "prunebridge_shim", "launch", ...flags, ...command], {
    stdio: ["ignore", "pipe", "pipe"],
    env: childEnvironment(env),
    buffer: false,
    reject: false,
    detached: true,
    cleanup: false,
  });
  if (onLog) child.stderr.on("data", (data: Buffer | string) => onLog(String(data)));
  const log = new LogTail(child.stderr);
  return { pid: child.pid ?? 0, python, log, exited: child.then(wordsOf), ...readLines(child.stdout, log) };
}

/** What ranks print lies between the lines that are meant for this side. */
function readLines(stdout: Readable, log: LogTail): Pick<Job, "readiness" | "failedRanks"> {
  let failed: FailedRanks | undefined;
  const readiness = new Promise<string>((resolve) => {
    createInterface({ input: stdout }).on("line", (line) => {
      const told = ranksFailed.safeParse(parseJson(line));
      if (told.success) failed = told.data.ranks;
      else if (isReadiness(line)) resolve(line);
      else log.add(`${line}\n`);
    });
  });
  return { readiness, failedRanks: () => failed };
}

function deathOf(child: Job, how: string): PruneError {
  return (
    lossOf(child, "RANK_LOST") ?? errorWithLog("SHIM_DIED", `the job ended unasked (${how})`, child.log, "look into what its ranks logged")
  );
}

/** Which rank's end was the job's. One that was killed tells more than those that failed for want of it, and those that torchrun ended tell nothing. */
function lossOf({ log, failedRanks }: Job, code: "SHIM_START_FAILED" | "RANK_LOST"): PruneError | undefined {
  const failed = (failedRanks() ?? []).filter(({ exit }) => exit !== -constants.signals.SIGTERM);
  const first = failed.find(({ exit }) => exit < 0) ?? failed[0];
  if (!first) return undefined;
  const ended = first.exit < 0 ? `was killed by signal ${-first.exit}` : `ended with exit code ${first.exit}`;
  return errorWithLog(code, `rank ${first.rank} ${ended}, and the job with it`, log, "look into what it logged; launch the job again");
}
