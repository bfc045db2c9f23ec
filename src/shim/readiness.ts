import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { type Child, errorWithLog } from "./child.js";
import { codeOfReasonName } from "./translate.js";

const NEEDS = "it needs Python 3.10 with grpcio, protobuf, safetensors and numpy; name one with PRUNEBRIDGE_PYTHON";

const readiness = z.discriminatedUnion("event", [
  z.looseObject({ event: z.literal("ready") }),
  z.looseObject({ event: z.literal("failed"), reason: z.string(), message: z.string(), hint: z.string().default("") }),
]);

/**
 * Waits for a shim's readiness line.
 *
 * @param line - resolves with the line, if one comes
 * @param timeout - in milliseconds
 * @param explain - says why the process ended first, where it knows
 * @throws PruneError SHIM_START_FAILED, MISSING_DEPENDENCY, or what the line says went wrong
 */
export async function awaitReadiness(
  child: Child,
  line: Promise<string>,
  timeout: number,
  explain: () => PruneError | undefined = () => undefined,
): Promise<void> {
  const patience = new AbortController();
  const found = await Promise.race([
    line,
    child.exited.then((how) => {
      throw explain() ?? startError(child, `ended before the shim was ready (${how})`);
    }),
    sleep(timeout, undefined, { signal: patience.signal }).then(
      () => {
        throw startError(child, `was not ready after ${timeout / 1000} s`);
      },
      () => new Promise<never>(() => {}),
    ),
  ]).finally(() => patience.abort());
  checkReady(found, child);
}

/** Whether a line is one that says whether a shim is ready. */
export function isReadiness(line: string): boolean {
  return readiness.safeParse(parseJson(line)).success;
}

function checkReady(line: string, child: Child): void {
  const parsed = readiness.safeParse(parseJson(line));
  if (!parsed.success) throw startError(child, `sent a readiness line that is none: ${line.slice(0, 200)}`);
  if (parsed.data.event === "ready") return;
  const { reason, message, hint } = parsed.data;
  throw new PruneError(codeOfReasonName(reason), message, hint ? { hint } : {});
}

function startError({ python, log }: Child, what: string): PruneError {
  return errorWithLog("SHIM_START_FAILED", `${python} ${what}`, log, NEEDS);
}

/** What a line says, where it is JSON. */
export function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
