import { Bridge, PruneError, type RunOptions, type SpawnOptions } from "../index.js";
import type { ShimFlags } from "./options.js";
import { ProgressBar } from "./progressBar.js";

/** Exit codes: done, failed, bad input. */
export const EXIT = { done: 0, failed: 1, badInput: 2 } as const;

/** The flags of the options that attaching takes. */
const OPTION_FLAGS: Readonly<Record<string, string>> = {
  tokenFile: "--token-file",
  tls: "--tls",
  "tls.ca": "--tls-ca",
  "tls.cert": "--tls-cert",
  "tls.key": "--tls-key",
  "tls.serverName": "--tls-server-name",
};

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

/**
 * Runs work on a shim of its own, or on the one that the flags name; what that may call, its operator has said. That the shim could not be
 * left in order neither hides how the work failed nor fails what succeeded.
 */
export async function withBridge<T>(flags: ShimFlags, body: (bridge: Bridge) => Promise<T>, options: SpawnOptions = {}): Promise<T> {
  const bridge = await openBridge(flags, options);
  try {
    return await body(bridge);
  } finally {
    await bridge.close().catch((error: unknown) => process.stderr.write(`warning: ${textOf(error)}\n`));
  }
}

/** Opens it, and names in what fails the flags beside the options that they stand for. */
async function openBridge(flags: ShimFlags, options: SpawnOptions): Promise<Bridge> {
  try {
    return await bridgeOf(flags, options);
  } catch (error) {
    if (!(error instanceof PruneError)) throw error;
    throw new PruneError(error.code, withFlags(error.detail), { hint: withFlags(error.hint), cause: error });
  }
}

async function bridgeOf({ attach, tokenFile, ...tlsFlags }: ShimFlags, options: SpawnOptions): Promise<Bridge> {
  const { tls, tlsCa: ca, tlsCert: cert, tlsKey: key, tlsServerName: serverName } = tlsFlags;
  const details = [ca, cert, key, serverName];
  if (attach === undefined) {
    if ([tokenFile, tls, ...details].every((flag) => flag === undefined)) return Bridge.spawn(options);
    throw new PruneError("BAD_OPTION", "--token-file and --tls flags are for a shim that runs already", {
      hint: "give its --attach host:port",
    });
  }
  if (details.every((flag) => flag === undefined)) return Bridge.attach(attach, { tokenFile, tls: tls || undefined });
  return Bridge.attach(attach, { tokenFile, tls: { ca, cert, key, serverName } });
}

function withFlags(text: string): string {
  // Words alone: a file may be called so.
  return text.replace(/(?<!\S)(tls\.\w+|tls|tokenFile)(?=[\s,;:]|$)/g, (option) => {
    const flag = OPTION_FLAGS[option];
    return flag === undefined ? option : `${option} (${flag})`;
  });
}

function reportError(error: unknown, asJson: boolean): void {
  const known = error instanceof PruneError ? error : undefined;
  if (asJson) {
    const { code = "INTERNAL", detail = String(error), hint = "" } = known ?? {};
    process.stdout.write(`${JSON.stringify({ error: { code, message: detail, hint } })}\n`);
  }
  process.stderr.write(`error: ${textOf(error)}\n`);
  process.exitCode = known?.kind === "input" ? EXIT.badInput : EXIT.failed;
}

/** A defect shows where it happened; what a user can mend shows how. */
function textOf(error: unknown): string {
  if (error instanceof PruneError) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
