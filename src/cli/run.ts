import { Bridge, PruneError, type RunOptions, type SpawnOptions } from "../index.js";
import type { ShimFlags } from "./options.js";
import { ProgressBar } from "./progressBar.js";

/** Exit codes: done, failed, bad input. */
export const EXIT = { done: 0, failed: 1, badInput: 2 } as const;

/** What a command prints: an object for --json, text for people. */
export interface Output {
  readonly json: unknown;
  readonly text: string;
}

/** Runs a command's body, prints what it gives or how it failed, and sets the exit code. */
export async function runCommand(flags: { json?: boolean }, body: (options: RunOptions) => Promise<Output>): Promise<void> {
  const cancel = new AbortController();
  const onInterrupt = (): void => cancel.abort(new Error("interrupted"));
  process.once("SIGINT", onInterrupt).once("SIGTERM", onInterrupt);
  const bar = new ProgressBar();
  try {
    const { json, text } = await body({ signal: cancel.signal, onProgress: bar.update });
    bar[Symbol.dispose]();
    process.stdout.write(flags.json ? `${JSON.stringify(json)}\n` : `${text}\n`);
  } catch (error) {
    bar[Symbol.dispose]();
    reportError(error, flags.json ?? false);
  } finally {
    process.off("SIGINT", onInterrupt).off("SIGTERM", onInterrupt);
  }
}

/** Runs work on a shim of its own, or on the one that the flags name; what that may call, its operator has said. */
export async function withBridge<T>(flags: ShimFlags, body: (bridge: Bridge) => Promise<T>, options: SpawnOptions = {}): Promise<T> {
  await using bridge = await openBridge(flags, options);
  return await body(bridge);
}

async function openBridge({ attach, tokenFile, ...tlsFlags }: ShimFlags, options: SpawnOptions): Promise<Bridge> {
  const { tls, tlsCa: ca, tlsCert: cert, tlsKey: key } = tlsFlags;
  const files = [ca, cert, key];
  if (attach === undefined) {
    if ([tokenFile, tls, ...files].every((flag) => flag === undefined)) return Bridge.spawn(options);
    throw new PruneError("BAD_OPTION", "--token-file and --tls flags are for a shim that runs already", {
      hint: "give its --attach host:port",
    });
  }
  if (files.every((flag) => flag === undefined)) return Bridge.attach(attach, { tokenFile, tls: tls || undefined });
  return Bridge.attach(attach, { tokenFile, tls: { ca, cert, key } });
}

function reportError(error: unknown, asJson: boolean): void {
  const known = error instanceof PruneError ? error : undefined;
  if (asJson) {
    const { code = "INTERNAL", detail = String(error), hint = "" } = known ?? {};
    process.stdout.write(`${JSON.stringify({ error: { code, message: detail, hint } })}\n`);
  }
  // A defect shows where it happened; what a user can mend shows how.
  process.stderr.write(`error: ${known ? known.message : error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = known?.kind === "input" ? EXIT.badInput : EXIT.failed;
}
